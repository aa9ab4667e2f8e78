/* What the core does, without Python around it: additions in buffers that are as long as they
 * must be and no longer, and transitions by many threads at once.
 *
 * The transitions are those of _sequence.pyx: the snapshot that follows is computed without a lock,
 * and swapped in under one mutex if the sequence still stands where the computation began. They
 * are written once more here because in the extension the GIL orders all that the mutex orders,
 * so that ThreadSanitizer could not miss the mutex there. (The extension is run under it, too.)
 *
 * The controls: -DSHORT_BUFFER, -DUNDEFINED and -DWITHOUT_LOCK must each be found.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "_digits.h"

#ifdef SHORT_BUFFER
#define ROOM(size) ((size) - 1)
#else
#define ROOM(size) (size)
#endif

static void check(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "wrong: %s\n", what);
        exit(1);
    }
}

/* Additions of all lengths up to here: past four vectors of 32 digits. */
enum { LONGEST = 140 };

static unsigned add_slowly(unsigned char *to, const unsigned char *a, ptrdiff_t a_size,
                           const unsigned char *b, ptrdiff_t b_size) {
    int carry = 0;
    for (ptrdiff_t at = 1; at <= a_size; at++) {
        int digit = a[a_size - at] - '0' + carry;
        if (at <= b_size)
            digit += b[b_size - at] - '0';
        carry = digit > 9;
        to[a_size - at] = (unsigned char)('0' + digit % 10);
    }
    return (unsigned)carry;
}

static unsigned add_words(unsigned char *to, const unsigned char *a, ptrdiff_t a_size,
                          const unsigned char *b, ptrdiff_t b_size) {
    return fib_add_words(to, a, a_size, b, b_size, 0);
}

static void add_in_exact_buffers(ptrdiff_t a_size, ptrdiff_t b_size) {
    unsigned char *a = malloc((size_t)ROOM(a_size)), *b = malloc((size_t)b_size);
    unsigned char *expected = malloc((size_t)a_size);
    check(a && b && expected, "memory");
    for (ptrdiff_t at = 0; at < a_size; at++)
        a[at] = (unsigned char)"0499"[rand() % 4];
    for (ptrdiff_t at = 0; at < b_size; at++)
        b[at] = (unsigned char)('0' + rand() % 10);
    unsigned carry = add_slowly(expected, a, a_size, b, b_size);
    unsigned (*forms[])(unsigned char *, const unsigned char *, ptrdiff_t, const unsigned char *,
                        ptrdiff_t) = {
        add_words,
        fib_add_text,
#if defined(__x86_64__) && defined(__GNUC__)
        __builtin_cpu_supports("avx2") ? fib_add_avx2 : add_words,
#endif
    };
    for (size_t form = 0; form < sizeof forms / sizeof *forms; form++) {
        unsigned char *to = malloc((size_t)a_size);
        check(to != NULL, "memory");
        unsigned got = forms[form](to, a, a_size, b, b_size);
        check(got == carry && !memcmp(to, expected, (size_t)a_size), "a sum");
        free(to);
    }
    free(a);
    free(b);
    free(expected);
}

enum { STEPPERS = 4, STEPS = 400 };

typedef struct Snapshot {
    uint64_t index;
    ptrdiff_t size, previous_size;
    unsigned char *digits;
    const struct Snapshot *previous;
} Snapshot;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const Snapshot *sequence;

static void lock(void) {
#ifndef WITHOUT_LOCK
    pthread_mutex_lock(&mutex);
#endif
}

static void unlock(void) {
#ifndef WITHOUT_LOCK
    pthread_mutex_unlock(&mutex);
#endif
}

static const Snapshot *load(void) {
    lock();
    const Snapshot *snapshot = sequence;
    unlock();
    return snapshot;
}

static int swap(const Snapshot *old, const Snapshot *new) {
    lock();
    int swapped = sequence == old;
    if (swapped)
        sequence = new;
    unlock();
    return swapped;
}

static Snapshot *following(const Snapshot *snapshot) {
    const Snapshot *previous = snapshot->previous ? snapshot->previous : snapshot;
    Snapshot *new = malloc(sizeof *new);
    unsigned char *digits = malloc((size_t)snapshot->size + 1);
    check(new && digits, "memory");
    digits[0] = '1';
    unsigned carry = fib_add_text(digits + 1, snapshot->digits, snapshot->size, previous->digits,
                                  previous->size);
    if (!carry)
        memmove(digits, digits + 1, (size_t)snapshot->size);
    *new = (Snapshot){snapshot->index + 1, snapshot->size + carry, snapshot->size, digits, snapshot};
    return new;
}

static void *step(void *taken) {
    for (int steps = 0; steps < STEPS; steps++) {
        const Snapshot *old;
        Snapshot *new;
        for (;;) {
            old = load();
            new = following(old);
            if (swap(old, new))
                break;
            free(new->digits);
            free(new);
        }
        ((uint64_t *)taken)[steps] = new->index;
    }
    return NULL;
}

static void step_from_many_threads(void) {
    static unsigned char first[] = "1";
    static const Snapshot start = {1, 1, 1, first, NULL};
    static uint64_t taken[STEPPERS][STEPS];
    static unsigned char seen[STEPPERS * STEPS];
    pthread_t threads[STEPPERS];
    sequence = &start;
    for (int thread = 0; thread < STEPPERS; thread++)
        check(!pthread_create(&threads[thread], NULL, step, taken[thread]), "a thread");
    for (int thread = 0; thread < STEPPERS; thread++)
        pthread_join(threads[thread], NULL);
    for (int thread = 0; thread < STEPPERS; thread++)
        for (int steps = 0; steps < STEPS; steps++) {
            uint64_t index = taken[thread][steps] - 2;
            check(index < sizeof seen && !seen[index]++, "an index, handed out twice");
        }
    check(sequence->index == 1 + STEPPERS * STEPS, "the last index");
}

int main(void) {
#ifdef UNDEFINED
    check((UINT64_C(1) << (rand() | 64)) != 1, "a shift by more than there is");
#endif
    for (ptrdiff_t a_size = 1; a_size <= LONGEST; a_size++)
        for (ptrdiff_t b_size = 1; b_size <= a_size; b_size++)
            add_in_exact_buffers(a_size, b_size);
    step_from_many_threads();
    return 0;
}
