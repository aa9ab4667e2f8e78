/* Adding decimal text: the inner loops of a step, from the last digit on.
 *
 * Eight digits are added in a machine word, or 32 or 64 in a vector if the processor has AVX2 or
 * AVX-512, which is detected at run time. In each form no digit waits for the carry of the one before
 * it: only one carry goes from block to block.
 */
#ifndef FIBCORE_DIGITS_H
#define FIBCORE_DIGITS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FIB_EVERY_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))

static inline uint64_t fib_load_be64(const unsigned char *from) {
    uint64_t word;
    memcpy(&word, from, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline void fib_store_be64(unsigned char *to, uint64_t word) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(to, &word, sizeof word);
}

/* The last b_size digits of a, which has a_size >= b_size, plus all of b, plus a carry.
 *
 * One addend is raised by 0x96 in each byte, so that two digits and a carry that make ten or more
 * make 0x100 or more: the binary carry is the decimal carry. A byte that did not carry is then
 * 0xF6 to 0xFF, its digit the low nibble less 6; a byte that did is 0 to 9. See D. E. Knuth, The
 * Art of Computer Programming 4A, 7.1.3, on several small numbers in one word.
 */
static inline unsigned fib_add_words(unsigned char *to, const unsigned char *a, ptrdiff_t a_size,
                                     const unsigned char *b, ptrdiff_t b_size, unsigned carry) {
    while (b_size >= 8) {
        a_size -= 8;
        b_size -= 8;
        uint64_t x = fib_load_be64(a + a_size);
        uint64_t partial = x + (fib_load_be64(b + b_size) + FIB_EVERY_BYTE(0x96));
        uint64_t sum = partial + carry;
        carry = (partial < x) | (sum < partial);
        uint64_t kept = (sum >> 7) & FIB_EVERY_BYTE(1);
        sum = (sum & FIB_EVERY_BYTE(0x0F)) - kept * 6;
        fib_store_be64(to + a_size, sum | FIB_EVERY_BYTE('0'));
    }
    while (a_size > 0) {
        unsigned digit = a[--a_size] + carry;
        if (b_size > 0)
            digit += b[--b_size] - '0';
        carry = digit > '9';
        to[a_size] = (unsigned char)(carry ? digit - 10 : digit);
    }
    return carry;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* With generate and propagate masks, the last digit in bit 0, one addition finds all carries:
 * a carry into a run of nines ripples through it as through a run of ones.
 */
__attribute__((target("avx2"))) static unsigned
fib_add_avx2(unsigned char *to, const unsigned char *a, ptrdiff_t a_size, const unsigned char *b,
             ptrdiff_t b_size) {
    const __m256i last_first =
        _mm256_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11,
                         10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m256i mask_byte =
        _mm256_setr_epi8(3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 0,
                         0, 0, 0, 0, 0, 0, 0);
    const __m256i mask_bit = _mm256_set1_epi64x(0x0102040810204080);
    const __m256i nine = _mm256_set1_epi8(2 * '0' + 9);
    const __m256i ten = _mm256_set1_epi8(10);
    const __m256i zero = _mm256_set1_epi8('0');
    uint64_t carry = 0;
    while (b_size >= 32) {
        a_size -= 32;
        b_size -= 32;
        __m256i sums = _mm256_add_epi8(_mm256_loadu_si256((const __m256i *)(a + a_size)),
                                       _mm256_loadu_si256((const __m256i *)(b + b_size)));
        __m256i turned =
            _mm256_permute4x64_epi64(_mm256_shuffle_epi8(sums, last_first), 0x4E);
        uint64_t generate = (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(turned, nine));
        uint64_t propagate = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(turned, nine));
        uint64_t rippled = (2 * generate + carry) + propagate;
        carry = rippled >> 32;
        __m256i carries = _mm256_set1_epi32((int)(uint32_t)(rippled ^ propagate));
        carries = _mm256_and_si256(_mm256_shuffle_epi8(carries, mask_byte), mask_bit);
        sums = _mm256_sub_epi8(sums, _mm256_cmpeq_epi8(carries, mask_bit));
        __m256i over = _mm256_and_si256(_mm256_cmpgt_epi8(sums, nine), ten);
        sums = _mm256_sub_epi8(_mm256_sub_epi8(sums, zero), over);
        _mm256_storeu_si256((__m256i *)(to + a_size), sums);
    }
    return fib_add_words(to, a, a_size, b, b_size, (unsigned)carry);
}

/* The same for 64 digits, in fewer instructions: comparisons make masks, and a mask selects where to
 * add. The blocks of a long number are added as fast as memory delivers them.
 */
#define FIB_AVX512 "avx512f,avx512bw,avx512vbmi"

__attribute__((target(FIB_AVX512))) static unsigned
fib_add_avx512(unsigned char *to, const unsigned char *a, ptrdiff_t a_size, const unsigned char *b,
               ptrdiff_t b_size) {
    const __m512i last_first = _mm512_set_epi64(
        0x0001020304050607, 0x08090A0B0C0D0E0F, 0x1011121314151617, 0x18191A1B1C1D1E1F,
        0x2021222324252627, 0x28292A2B2C2D2E2F, 0x3031323334353637, 0x38393A3B3C3D3E3F);
    const __m512i nine = _mm512_set1_epi8(2 * '0' + 9);
    const __m512i one = _mm512_set1_epi8(1);
    const __m512i ten = _mm512_set1_epi8(10);
    const __m512i zero = _mm512_set1_epi8('0');
    uint64_t carry = 0;
    while (b_size >= 64) {
        a_size -= 64;
        b_size -= 64;
        __m512i sums =
            _mm512_add_epi8(_mm512_loadu_si512(a + a_size), _mm512_loadu_si512(b + b_size));
        sums = _mm512_permutexvar_epi8(last_first, sums);
        uint64_t generate = _mm512_cmpgt_epu8_mask(sums, nine);
        uint64_t propagate = _mm512_cmpeq_epu8_mask(sums, nine);
        uint64_t raised = 2 * generate + carry;
        uint64_t rippled = raised + propagate;
        carry = (generate >> 63) | (rippled < raised);
        sums = _mm512_mask_add_epi8(sums, rippled ^ propagate, sums, one);
        uint64_t over = _mm512_cmpgt_epu8_mask(sums, nine);
        sums = _mm512_mask_sub_epi8(sums, over, sums, ten);
        sums = _mm512_sub_epi8(_mm512_permutexvar_epi8(last_first, sums), zero);
        _mm512_storeu_si512(to + a_size, sums);
    }
    return fib_add_words(to, a, a_size, b, b_size, (unsigned)carry);
}

static inline int fib_has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
           && __builtin_cpu_supports("avx512vbmi");
}
#endif

/* Writes the last a_size digits of a + b to `to`, and returns the digit before them: 0 or 1.
 * a_size >= b_size >= 1. `to` may not overlap a or b.
 */
static unsigned fib_add_text(unsigned char *to, const unsigned char *a, ptrdiff_t a_size,
                             const unsigned char *b, ptrdiff_t b_size) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (fib_has_avx512())
        return fib_add_avx512(to, a, a_size, b, b_size);
    if (__builtin_cpu_supports("avx2"))
        return fib_add_avx2(to, a, a_size, b, b_size);
#endif
    return fib_add_words(to, a, a_size, b, b_size, 0);
}

#endif
