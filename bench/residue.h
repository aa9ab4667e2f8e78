/* A number's residue from its decimal text, sixteen digits at a time, for load.c: modulo the prime
 * 2^61-1, or modulo 2^64 with --uint64. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static const uint64_t NONE = UINT64_MAX;  /* no ETag; a residue that was not computed */
static const uint64_t PRIME = ((uint64_t)1 << 61) - 1;
static bool uint64_numbers;

/* Eight decimal digits as a number, or NONE: sums of neighbours, then of pairs, then of fours. */
static uint64_t eight_digits(const char *digits) {
    uint64_t word;
    memcpy(&word, digits, 8);
    word -= 0x3030303030303030;
    if ((word | (word + 0x7676767676767676)) & 0x8080808080808080) return NONE;
    word = word * 10 + (word >> 8);
    return ((word & 0x000000FF000000FF) * 0x000F424000000064 +
            ((word >> 16) & 0x000000FF000000FF) * 0x0000271000000001) >> 32;
}

static uint64_t append(uint64_t residue, uint64_t scale, uint64_t word) {
    unsigned __int128 wide = (unsigned __int128)residue * scale + word;
    if (uint64_numbers) return (uint64_t)wide;
    residue = (uint64_t)(wide & PRIME) + (uint64_t)(wide >> 61);
    return residue >= PRIME ? residue - PRIME : residue;
}

/* The number's residue with `size` more digits after it, or NONE where one is not a digit. */
static uint64_t add_digits(uint64_t residue, const char *digits, size_t size) {
    for (; size >= 16; digits += 16, size -= 16) {
        uint64_t high = eight_digits(digits), low = eight_digits(digits + 8);
        if (high == NONE || low == NONE) return NONE;
        residue = append(residue, 10000000000000000, high * 100000000 + low);
    }
    for (; size; digits++, size--) {
        unsigned digit = (unsigned char)*digits - '0';
        if (digit > 9) return NONE;
        residue = append(residue, 10, digit);
    }
    return residue;
}
