/*
 * Idempotency keys: two nodes of one sequence are asked for steps by keys, each again and again.
 *
 * The rule: the step of a key has a higher index than the one in the key. A store keeps the keys of
 * the last steps, in the same commit as the steps, and `dropped`: no key of a step past that index
 * has been dropped. A key that is not kept is new if its index is at least `dropped` and at most that
 * of the sequence, and is rejected otherwise.
 *
 * A key is asked for on any node, at once or later, because its reply was lost, or late, or just so;
 * clients may have last seen any index; others step without keys; of the keys, KEEP are kept. That a
 * batch happens once is what batch.pml is about: here each question is a batch of one step. SPIN
 * tries all orders of these. The assertions: a key makes one step at the most, and is answered with
 * that.
 *
 * The engine's own rule is one of
 *   SCRIPT      Redis: one script looks the key up, writes, and drops the oldest key
 *   STATEMENT   PostgreSQL: one statement sees the keys as of its beginning, and the row of the
 *               sequence as of its end; a key can't be inserted twice; another statement drops keys
 *   REVISIONS   etcd: a transaction compares the revision of the index up to which the keys were
 *               read before; another one, which compares the revision of `dropped`, drops keys
 *
 * Each macro WITHOUT_... takes away one part, and an assertion fails. (Without looking a key up,
 * PostgreSQL makes no second step, but tries to without an end.)
 */

#define KEYS 3
#define KEEP 1
#define LAST 5 /* the index at which no more steps are made */
#define NOT_DRAWN 255

/* The engine. */
byte index, dropped;
byte kept[KEYS]; /* the index of its step, 0 if it is not kept */

/* The clients, and the judge. */
byte since[KEYS] = NOT_DRAWN; /* the index in a key */
byte made[KEYS];              /* the index of the step that it has made, or 0 */

/* A client draws a key: it may have seen any index, or may have the key of another sequence. */
inline choose_a_key() {
    if
    :: key = 0
    :: since[0] != NOT_DRAWN -> key = 1
    :: since[1] != NOT_DRAWN -> key = 2
    fi;
    if
    :: since[key] == NOT_DRAWN ->
        since[key] = index;
        do
        :: since[key] > 0 && since[key] != LAST -> since[key]--
        :: since[key] = LAST; break
        :: break
        od
    :: else
    fi
}

#ifdef WITHOUT_REJECTING_WHAT_IS_DROPPED
#define IS_NOT_DROPPED(key, up_to) true
#else
#define IS_NOT_DROPPED(key, up_to) (since[key] >= up_to)
#endif

#ifdef WITHOUT_REJECTING_WHAT_IS_AHEAD
#define IS_NOT_AHEAD(key, at) true
#else
#define IS_NOT_AHEAD(key, at) (since[key] <= at)
#endif

#define IS_NEW(key, at, up_to) (IS_NOT_DROPPED(key, up_to) && IS_NOT_AHEAD(key, at) && at < LAST)

#ifdef WITHOUT_LOOKING_IT_UP
#define FOUND(where) 0
#else
#define FOUND(where) where
#endif

/* In the transaction of its batch. */
inline step(key) {
    index++;
    assert(made[key] == 0);
    made[key] = index;
#ifndef WITHOUT_KEEPING_IT_IN_THE_COMMIT
    kept[key] = index
#endif
}

#ifdef WITHOUT_KEEPING_IT_IN_THE_COMMIT
#define KEEP_IT(key) \
    if \
    :: kept[key] = made[key] \
    :: true /* killed before */ \
    fi
#else
#define KEEP_IT(key) skip
#endif

inline answer(key, at) {
    assert(at == made[key])
}

inline raise_dropped(to) {
#ifndef WITHOUT_NOTING_WHAT_IS_DROPPED
    dropped = (to > dropped -> to : dropped)
#else
    skip
#endif
}

/* The index up to which keys may be dropped, 0 for none: KEEP, which is 1, are left. */
#define NEWEST(of) (of[0] > of[1] -> (of[0] > of[2] -> 0 : 2) : (of[1] > of[2] -> 1 : 2))
#define HIGHER(a, b) (a > b -> a : b)
#define SURPLUS(of) \
    (NEWEST(of) == 0 -> HIGHER(of[1], of[2]) : \
        (NEWEST(of) == 1 -> HIGHER(of[0], of[2]) : HIGHER(of[0], of[1])))
#define REMOVE(i, up_to) kept[i] = (kept[i] <= up_to -> 0 : kept[i])

inline remove_keys(up_to) {
    REMOVE(0, up_to); REMOVE(1, up_to); REMOVE(2, up_to)
}

#ifdef SCRIPT

proctype node() {
    byte key, surplus;
end: do
    :: atomic {
        choose_a_key();
        if
        :: FOUND(kept[key]) -> answer(key, kept[key])
        :: !FOUND(kept[key]) && IS_NEW(key, index, dropped) ->
            step(key);
            surplus = SURPLUS(kept);
            raise_dropped(surplus);
            remove_keys(surplus)
        :: else /* rejected */
        fi;
        KEEP_IT(key);
        key = 0; surplus = 0 }
    od
}

#endif
#ifdef STATEMENT

proctype node() {
    byte key, found, surplus;
end: do
    :: atomic { choose_a_key(); found = FOUND(kept[key]) };
begun:  atomic {
        if
        :: found && kept[key] -> answer(key, kept[key])
        :: found && !kept[key] /* found, and dropped since: rejected */
#ifndef WITHOUT_A_UNIQUE_KEY
        :: !found && kept[key] && IS_NEW(key, index, dropped) -> /* the insertion fails: again */
            found = FOUND(kept[key]);
            goto begun
        :: !found && !kept[key] && IS_NEW(key, index, dropped) -> step(key)
#else
        :: !found && IS_NEW(key, index, dropped) -> step(key)
#endif
        :: !found && !IS_NEW(key, index, dropped) /* rejected */
        fi;
        KEEP_IT(key);
        key = 0; found = 0 }
    :: surplus = SURPLUS(kept);
        /* The statement waits for the row of the sequence. */
        atomic { raise_dropped(surplus); remove_keys(surplus); surplus = 0 }
    od
}

#endif
#ifdef REVISIONS

/* A transaction that is under way: it arrives at any time, or never. */
bool under_way;
byte copy_key, copy_of_index;

/* An index is never written again, and neither is a `dropped`: their values tell revisions. */
#ifdef WITHOUT_THE_REVISION_OF_THE_INDEX
#define IS_UNCHANGED(at) true
#else
#define IS_UNCHANGED(at) (index == at)
#endif
#ifdef WITHOUT_THE_REVISION_OF_DROPPED
#define IS_STILL(up_to) true
#else
#define IS_STILL(up_to) (dropped == up_to)
#endif

/* What is read: `dropped`, and the keys that are not in the memory of the node, which drops others. */
#define READ(i) memory[i] = (kept[i] > seen -> kept[i] : memory[i]); \
    memory[i] = (memory[i] <= seen_dropped -> 0 : memory[i])
inline look() {
    seen_dropped = dropped;
#ifndef WITHOUT_READING_THE_KEYS_OF_OTHERS
    READ(0); READ(1); READ(2);
#endif
    seen = index
}

/* On a new connection it knows nothing. */
inline connect() {
    memory[0] = 0; memory[1] = 0; memory[2] = 0;
    seen = 0;
    look()
}

proctype node() {
    byte key, seen, seen_dropped, surplus;
    byte memory[KEYS];
end: do
    :: atomic {
        choose_a_key();
ask:    if
        :: FOUND(memory[key]) -> answer(key, memory[key])
        :: !FOUND(memory[key]) && IS_NEW(key, seen, seen_dropped) ->
            if
            :: IS_UNCHANGED(seen) && index < LAST -> /* it is done, and the reply arrives */
                step(key);
                memory[key] = index;
                seen = index
            :: IS_UNCHANGED(seen) && !under_way -> /* the reply is lost, and so is the connection */
                under_way = true;
                copy_key = key;
                copy_of_index = seen;
                connect()
            :: !IS_UNCHANGED(seen) -> look(); goto ask
            :: IS_UNCHANGED(seen) && index == LAST
            fi
        :: !FOUND(memory[key]) && !IS_NEW(key, seen, seen_dropped) ->
            if
            :: seen != index || seen_dropped != dropped -> look(); goto ask
            :: else /* rejected */
            fi
        fi;
        KEEP_IT(key);
        key = 0 }
    :: atomic { SURPLUS(memory) ->
        surplus = SURPLUS(memory);
        if
        :: IS_STILL(seen_dropped) ->
#ifndef WITHOUT_NOTING_WHAT_IS_DROPPED
            dropped = surplus;
#endif
            remove_keys(surplus)
        :: else
        fi;
        surplus = 0;
        look() }
    :: atomic { connect() } /* killed, or its connection is lost */
    od
}

active proctype network() {
end: do
    :: atomic { under_way && IS_UNCHANGED(copy_of_index) && index < LAST -> step(copy_key); under_way = false }
    :: atomic { under_way && !IS_UNCHANGED(copy_of_index) -> under_way = false }
    od
}

#endif

active proctype others() {
end: do
    :: atomic { index < LAST -> index++ }
    od
}

init {
    atomic { run node(); run node() }
}
