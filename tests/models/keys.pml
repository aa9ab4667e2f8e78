/*
 * Idempotency keys: two nodes of one sequence receive keyed steps, each key any number of times.
 *
 * The rule: the step of a key has a higher index than the one in the key. A store keeps the keys of
 * the last steps, committed together with the steps, and `dropped`: no key of a step after that
 * index was dropped. A key that is not stored is new if its index is at least `dropped` and at most
 * the current index; otherwise it is rejected.
 *
 * A key is sent to any node at any time, also after a lost or late reply; clients may have last seen
 * any index; others step without keys; KEEP keys are stored. That a batch is applied once is the
 * subject of batch.pml: here each request is a batch of one step. SPIN tries every order of these.
 * The assertions: a key makes at most one step, and is answered with that step.
 *
 * The engine's rule is one of
 *   SCRIPT      Redis: one script looks the key up, writes, and drops the oldest key
 *   STATEMENT   PostgreSQL: one statement sees the keys as of its start and the sequence as of its
 *               end; keys are unique; another statement drops keys
 *   REVISIONS   etcd: a transaction compares the index's revision up to which keys were read;
 *               another one compares the revision of `dropped` and drops keys
 *
 * Each macro WITHOUT_... removes one part of the rule, and an assertion fails. (Without the lookup,
 * PostgreSQL makes no second step, but retries forever.)
 */

#define KEYS 3
#define KEEP 1
#define LAST 5 /* the last index */
#define NOT_DRAWN 255

/* The engine. */
byte index, dropped;
byte stored[KEYS]; /* the index of its step; 0 if it is not stored */

/* The clients, and for the assertions. */
byte since[KEYS] = NOT_DRAWN; /* the index in a key */
byte step_of[KEYS];           /* the index of its step, or 0 */

/* A client draws a key: it may have last seen any index, or have the key of another sequence. */
inline draw_key() {
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

#ifdef WITHOUT_REJECTING_DROPPED_KEYS
#define IS_NOT_DROPPED(key, up_to) true
#else
#define IS_NOT_DROPPED(key, up_to) (since[key] >= up_to)
#endif

#ifdef WITHOUT_REJECTING_KEYS_AHEAD
#define IS_NOT_AHEAD(key, at) true
#else
#define IS_NOT_AHEAD(key, at) (since[key] <= at)
#endif

#define IS_NEW(key, at, up_to) (IS_NOT_DROPPED(key, up_to) && IS_NOT_AHEAD(key, at) && at < LAST)

#ifdef WITHOUT_KEY_LOOKUP
#define FOUND(where) 0
#else
#define FOUND(where) where
#endif

/* In the transaction of its batch. */
inline step(key) {
    index++;
    assert(step_of[key] == 0);
    step_of[key] = index;
#ifndef WITHOUT_STORING_THE_KEY_IN_THE_COMMIT
    stored[key] = index
#endif
}

#ifdef WITHOUT_STORING_THE_KEY_IN_THE_COMMIT
#define STORE_KEY(key) \
    if \
    :: stored[key] = step_of[key] \
    :: true /* killed first */ \
    fi
#else
#define STORE_KEY(key) skip
#endif

inline answer(key, at) {
    assert(at == step_of[key])
}

inline raise_dropped(to) {
#ifndef WITHOUT_RECORDING_DROPPED
    dropped = (to > dropped -> to : dropped)
#else
    skip
#endif
}

/* The index up to which keys may be dropped, 0 for none; KEEP = 1 key is left. */
#define NEWEST(of) (of[0] > of[1] -> (of[0] > of[2] -> 0 : 2) : (of[1] > of[2] -> 1 : 2))
#define HIGHER(a, b) (a > b -> a : b)
#define SURPLUS(of) \
    (NEWEST(of) == 0 -> HIGHER(of[1], of[2]) : \
        (NEWEST(of) == 1 -> HIGHER(of[0], of[2]) : HIGHER(of[0], of[1])))
#define REMOVE(i, up_to) stored[i] = (stored[i] <= up_to -> 0 : stored[i])

inline remove_keys(up_to) {
    REMOVE(0, up_to); REMOVE(1, up_to); REMOVE(2, up_to)
}

#ifdef SCRIPT

proctype node() {
    byte key, surplus;
end: do
    :: atomic {
        draw_key();
        if
        :: FOUND(stored[key]) -> answer(key, stored[key])
        :: !FOUND(stored[key]) && IS_NEW(key, index, dropped) ->
            step(key);
            surplus = SURPLUS(stored);
            raise_dropped(surplus);
            remove_keys(surplus)
        :: else /* rejected */
        fi;
        STORE_KEY(key);
        key = 0; surplus = 0 }
    od
}

#endif
#ifdef STATEMENT

proctype node() {
    byte key, found, surplus;
end: do
    :: atomic { draw_key(); found = FOUND(stored[key]) };
begun:  atomic {
        if
        :: found && stored[key] -> answer(key, stored[key])
        :: found && !stored[key] /* found, but dropped since: rejected */
#ifndef WITHOUT_A_UNIQUE_KEY
        :: !found && stored[key] && IS_NEW(key, index, dropped) -> /* the insertion fails: retry */
            found = FOUND(stored[key]);
            goto begun
        :: !found && !stored[key] && IS_NEW(key, index, dropped) -> step(key)
#else
        :: !found && IS_NEW(key, index, dropped) -> step(key)
#endif
        :: !found && !IS_NEW(key, index, dropped) /* rejected */
        fi;
        STORE_KEY(key);
        key = 0; found = 0 }
    :: surplus = SURPLUS(stored);
        /* The statement waits for the row of the sequence. */
        atomic { raise_dropped(surplus); remove_keys(surplus); surplus = 0 }
    od
}

#endif
#ifdef REVISIONS

/* A transaction in flight: it may arrive at any time, or never. */
bool under_way;
byte copy_key, copy_of_index;

/* Values of the index and of `dropped` never repeat, so they stand for revisions. */
#ifdef WITHOUT_THE_REVISION_OF_THE_INDEX
#define IS_UNCHANGED(at) true
#else
#define IS_UNCHANGED(at) (index == at)
#endif
#ifdef WITHOUT_THE_REVISION_OF_DROPPED
#define DROPPED_IS_UNCHANGED(up_to) true
#else
#define DROPPED_IS_UNCHANGED(up_to) (dropped == up_to)
#endif

/* Read `dropped` and the keys that the node does not know; forget dropped keys. */
#define READ(i) memory[i] = (stored[i] > seen -> stored[i] : memory[i]); \
    memory[i] = (memory[i] <= seen_dropped -> 0 : memory[i])
inline read_state() {
    seen_dropped = dropped;
#ifndef WITHOUT_READING_KEYS_OF_OTHERS
    READ(0); READ(1); READ(2);
#endif
    seen = index
}

/* A new connection starts without knowledge. */
inline connect() {
    memory[0] = 0; memory[1] = 0; memory[2] = 0;
    seen = 0;
    read_state()
}

proctype node() {
    byte key, seen, seen_dropped, surplus;
    byte memory[KEYS];
end: do
    :: atomic {
        draw_key();
ask:    if
        :: FOUND(memory[key]) -> answer(key, memory[key])
        :: !FOUND(memory[key]) && IS_NEW(key, seen, seen_dropped) ->
            if
            :: IS_UNCHANGED(seen) && index < LAST -> /* applied, and the reply arrives */
                step(key);
                memory[key] = index;
                seen = index
            :: IS_UNCHANGED(seen) && !under_way -> /* the reply and the connection are lost */
                under_way = true;
                copy_key = key;
                copy_of_index = seen;
                connect()
            :: !IS_UNCHANGED(seen) -> read_state(); goto ask
            :: IS_UNCHANGED(seen) && index == LAST
            fi
        :: !FOUND(memory[key]) && !IS_NEW(key, seen, seen_dropped) ->
            if
            :: seen != index || seen_dropped != dropped -> read_state(); goto ask
            :: else /* rejected */
            fi
        fi;
        STORE_KEY(key);
        key = 0 }
    :: atomic { SURPLUS(memory) ->
        surplus = SURPLUS(memory);
        if
        :: DROPPED_IS_UNCHANGED(seen_dropped) ->
#ifndef WITHOUT_RECORDING_DROPPED
            dropped = surplus;
#endif
            remove_keys(surplus)
        :: else
        fi;
        surplus = 0;
        read_state() }
    :: atomic { connect() } /* killed, or the connection is lost */
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
