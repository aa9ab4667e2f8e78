/*
 * The shared batch: two nodes with two batches each step one sequence in an engine.
 *
 * The rule: a process has one identity and creates its record once, at its first connect; a batch is
 * applied only if that record exists; a node that has sent a batch reports nothing about its steps
 * until it knows the outcome, and no copy can change it. So a batch in doubt is settled: its number is
 * found in the record, or written there. In the latter case the batch is not applied, nor ever will be.
 *
 * The condition of a batch, if any, holds at one index, or from an index on (a key ahead of the
 * sequence).
 *
 * At any moment a reply is lost (also that to the creation of a record), a copy of a request arrives
 * late or again, the engine answers with an error, a record is removed, or a process is killed and
 * replaced. SPIN tries every order of these. The assertions are promises 1 and 2 of
 * docs/reliability.md, and that a batch answered with an error is never applied.
 *
 * The engine's rule is one of
 *   SCRIPT      Redis: one script checks the record and the conditions, writes, and returns both
 *   STATEMENT   PostgreSQL: one statement checks and writes; a second one reads the outcome
 *   REVISIONS   etcd: a transaction compares the revisions that were read before
 *
 * Each macro WITHOUT_... removes one part of the rule, and an assertion fails.
 */

#define NODES 2
#define BATCHES 2 /* per node */
#define PROCESSES (NODES + 1) /* the first may be killed or end, and is replaced */
#define SENT (PROCESSES * BATCHES)
#define ANYWHERE 255 /* a batch without a condition */
#define FROM 100     /* what is added to the index from which on a condition holds */

mtype = { nothing, answered, not_stepped };

/* The engine. */
byte index;
bool has_record[PROCESSES];    /* whether the record of a process exists; it holds */
byte number[PROCESSES];   /*   the number of its last batch, */
byte index_after[PROCESSES];  /*   and the index after it */
#ifdef WITHOUT_ABANDONING_A_NAME
bool creation_is_late[PROCESSES]; /* whether a copy of its creation is in flight */
#endif

/* Sent batches: batch `number` of a process is at process * BATCHES + number - 1. */
byte expected[SENT];
byte batch_of[SENT];
bool late[SENT]; /* whether a copy is in flight: it may arrive at any time, and more than once */
bool settling; /* whether a copy of the settlement of the first process's first batch is in flight */

/* For the assertions. */
byte done[NODES * BATCHES];  /* how often a batch was applied, */
byte index_of[NODES * BATCHES];   /* the index after it, */
mtype outcome[NODES * BATCHES]; /* and what its clients were answered */

#define HOLDS(sent, at) (expected[sent] == ANYWHERE || expected[sent] == at || \
    (expected[sent] >= FROM && at >= expected[sent] - FROM))

/* Increment the index, in the transaction of a batch. */
inline move(sent) {
    assert(HOLDS(sent, index));
    index++;
    done[batch_of[sent]]++;
    index_of[batch_of[sent]] = index;
    assert(done[batch_of[sent]] == 1);           /* only once, */
    assert(outcome[batch_of[sent]] != not_stepped)  /* and never after "not stepped" */
}

inline report_done(to) {
    outcome[batch] = answered;
    assert(done[batch] == 1 && index_of[batch] == to); /* acknowledged: committed, with this index */
    index_of[batch] = 0
}

inline report_not_stepped() {
    outcome[batch] = not_stepped;
    assert(done[batch] == 0)
}

/*
 * Create the record once: without a reply the process abandons the name and creates another record.
 * A late copy may still create the first one, for which no batch will ever be sent.
 */
inline create_record() {
    if
    :: true
#ifdef WITHOUT_ABANDONING_A_NAME
    :: creation_is_late[process] = true
#endif
    fi;
    has_record[process] = true
}

/* Give a batch its number, and perhaps an expected index. */
inline begin() {
    last++;
    sent = process * BATCHES + last - 1;
    batch = me * BATCHES + begun;
    begun++;
    batch_of[sent] = batch;
    if
    :: expected[sent] = ANYWHERE
    :: expected[sent] = index
#ifndef REVISIONS /* they have changed by then */
    :: sent == 0 -> expected[sent] = FROM + index + 1
#endif
    fi
}

#ifdef WITHOUT_CONDITIONS
#define ALLOWED(sent, at) true
#else
#define ALLOWED(sent, at) HOLDS(sent, at)
#endif

#ifdef WITHOUT_THE_INDEX_IN_THE_RECORD
#define AFTER(noted) index
#else
#define AFTER(noted) noted
#endif

#if defined(SCRIPT) || defined(STATEMENT)

/* Whether the engine applies a batch. */
#define IS_NEW(whose, sent) (number[whose] < (sent) % BATCHES + 1)
#if defined(WITHOUT_REQUIRING_THE_RECORD)
#define MAY(whose, sent) ((!has_record[whose] || IS_NEW(whose, sent)) && ALLOWED(sent, index))
#elif defined(WITHOUT_COMPARING_NUMBERS)
#define MAY(whose, sent) (has_record[whose] && ALLOWED(sent, index))
#else
#define MAY(whose, sent) (has_record[whose] && IS_NEW(whose, sent) && ALLOWED(sent, index))
#endif

inline commit(whose, sent) {
    move(sent);
    has_record[whose] = true;
    number[whose] = (sent) % BATCHES + 1;
    index_after[whose] = index
}

/* The number of a batch is used up, if it is not: by none that led anywhere. */
inline use_up(whose, sent) {
    if
#ifdef WITHOUT_NUMBERS_OF_SETTLEMENTS
    :: has_record[whose] && number[whose] != (sent) % BATCHES + 1 ->
#else
    :: has_record[whose] && number[whose] < (sent) % BATCHES + 1 ->
#endif
#ifndef WITHOUT_USING_THE_NUMBER_UP
        number[whose] = (sent) % BATCHES + 1;
#endif
        index_after[whose] = 0
    :: else
    fi
}

proctype node(byte me) {
    byte process = me, last, sent, batch, begun;
connect: atomic {
    create_record() };
next: atomic {
    if
    :: begun < BATCHES -> begin()
    :: else -> has_record[process] = false; goto closed /* graceful stop */
    fi };
ask:    atomic {
        if
        :: true -> /* the reply arrives */
            if
            :: MAY(process, sent) ->
                commit(process, sent);
                report_done(AFTER(index_after[process]));
                goto next
#ifdef STATEMENT
            :: else -> goto ask_the_record
#else
            :: else ->
                report_not_stepped();
                if
                :: has_record[process] -> goto next
                :: else -> goto ended /* as another process */
                fi
#endif
            fi
        :: true -> /* no reply: the request may have arrived, or may do so later */
            late[sent] = true;
#ifdef WITHOUT_ASKING_AGAIN
            report_done(index + 1);
            goto next
#endif
#ifdef WITHOUT_CREATING_THE_RECORD_ONCE
            if
            :: has_record[process]
            :: !has_record[process] -> has_record[process] = true; number[process] = 0
            fi;
#endif
            goto doubt
        :: true -> report_not_stepped(); goto next /* an error of the engine: it was not applied */
        :: process == 0 -> late[sent] = true; goto ended /* killed */
        fi };
#ifdef STATEMENT
ask_the_record: atomic {
        if
        :: has_record[process] -> report_not_stepped(); goto next
        :: !has_record[process] -> report_not_stepped(); goto ended /* as another process */
        :: true -> goto doubt /* no reply */
        :: true -> report_not_stepped(); goto next /* the engine's error */
        :: process == 0 -> goto ended /* killed */
        fi };
#endif
doubt:  atomic {
        if
        :: has_record[process] && number[process] == last && index_after[process] ->
            report_done(AFTER(index_after[process]));
            goto next
        :: has_record[process] && !(number[process] == last && index_after[process]) ->
            use_up(process, sent);
            report_not_stepped();
            goto next
        :: !has_record[process] -> goto ended /* unanswered: the outcome can't be known */
        :: sent == 0 && !settling -> settling = true; goto doubt /* no reply */
#ifdef WITHOUT_SILENCE_IN_DOUBT
        :: true -> report_not_stepped(); goto next /* the engine's error */
#endif
        :: process == 0 -> goto ended /* killed */
        fi };
ended: atomic {
    if
    :: process == 0 -> process = NODES; last = 0; goto connect
    :: else -> goto closed
    fi };
closed: skip
}

#define ARRIVES(i) \
    :: atomic { late[i] && MAY((i) / BATCHES, i) -> commit((i) / BATCHES, i) }

#define SETTLEMENT_ARRIVES use_up(0, 0)

#else /* REVISIONS */

/*
 * A revision is represented by the value written with it, as values never repeat: the index; the
 * number + 1 of a record, 0 if there is none.
 */
#define REVISION(whose) (has_record[whose] -> number[whose] + 1 : 0)

typedef Transaction { byte of_index; byte of_record };
Transaction copies[SENT]; /* one of each batch is in flight, */
bool under_way[SENT];     /* or none */
byte settled_at;          /* the revision of the record that the settlement compares */

/* Whether the engine applies a transaction: the revisions are unchanged. */
#ifdef WITHOUT_THE_REVISION_OF_THE_INDEX
#define MAY(whose, of_index, of_record) (REVISION(whose) == of_record)
#else
#define MAY(whose, of_index, of_record) (REVISION(whose) == of_record && index == of_index)
#endif

/* Copies in flight can have no effect from now on: drop them. */
#ifdef WITHOUT_THE_REVISION_OF_THE_INDEX
#define FORGET_COPIES skip
#else
#define FORGET_COPIES FORGET(0); FORGET(1); FORGET(2); FORGET(3); FORGET(4); FORGET(5)
#define FORGET(i) under_way[i] = 0; copies[i].of_index = 0; copies[i].of_record = 0
#endif

inline put(whose, sent, read) {
    assert(index == read); /* otherwise the index would fall */
    move(sent);
    FORGET_COPIES;
    has_record[whose] = true;
    number[whose] = (sent) % BATCHES + 1;
    index_after[whose] = index
}

inline use_up(whose, sent, of_record) {
    if
    :: REVISION(whose) == of_record ->
#ifndef WITHOUT_USING_THE_NUMBER_UP
        number[whose] = (sent) % BATCHES + 1;
#endif
        index_after[whose] = 0
    :: else
    fi
}

inline read_state() {
    seen = index;
    seen_record = REVISION(process);
    seen_after = index_after[process];
    is_new = true
}

inline delay_a_copy() {
    copies[sent].of_index = seen;
    copies[sent].of_record = seen_record;
    under_way[sent] = true
}

proctype node(byte me) {
    byte process = me, last, sent, batch, begun, seen, seen_record, seen_after;
    bool is_new;
connect: atomic {
    create_record();
    read_state() };
next: atomic {
    if
    :: begun < BATCHES -> begin(); read_state(); is_new = false
    :: else -> has_record[process] = false; goto closed /* graceful stop */
    fi };
ask:    atomic {
        if
        :: seen_record == 0 -> report_not_stepped(); goto ended /* as another process */
        :: seen_record && !ALLOWED(sent, seen) ->
            if
            :: is_new -> report_not_stepped(); goto next
            :: else -> goto reread
            fi
        :: else
        fi;
        if
        :: true -> /* the reply arrives, with both values */
            if
            :: MAY(process, seen, seen_record) ->
                put(process, sent, seen);
                report_done(AFTER(index));
                goto next
            :: else -> read_state(); goto ask
            fi
        :: !under_way[sent] -> /* no reply: the request may have arrived, or may do so later */
            delay_a_copy();
#ifdef WITHOUT_ASKING_AGAIN
            report_done(seen + 1);
            goto next
#endif
            goto doubt
        :: true -> /* an error: when its quota is exhausted, etcd may apply what it reports as rejected */
            if
            :: MAY(process, seen, seen_record) -> put(process, sent, seen)
            :: true
            fi;
#ifdef WITHOUT_DOUBTING_ERRORS
            report_not_stepped();
            goto next
#else
            goto doubt
#endif
        :: process == 0 && !under_way[sent] -> delay_a_copy(); goto ended /* killed */
        fi };
reread: atomic {
        if
        :: read_state(); goto ask
        :: report_not_stepped(); goto next /* unavailable */
        :: process == 0 -> goto ended
        fi };
doubt:  atomic {
        if
        :: read_state()
#ifdef WITHOUT_SILENCE_IN_DOUBT
        :: report_not_stepped(); goto next
#endif
        :: process == 0 -> goto ended
        fi;
        if
        :: seen_record == 0 ->
#ifdef WITHOUT_CREATING_THE_RECORD_ONCE
            has_record[process] = true;
            read_state();
            goto ask
#else
            goto ended /* unanswered: the outcome can't be known */
#endif
        :: seen_record == last + 1 && seen_after -> report_done(AFTER(seen_after)); goto next
        :: seen_record && !(seen_record == last + 1 && seen_after)
        fi };
settle: atomic {
        if
        :: REVISION(process) == seen_record -> /* the reply arrives */
            use_up(process, sent, seen_record);
            read_state();
            report_not_stepped();
            goto next
        :: REVISION(process) != seen_record -> goto doubt
        :: sent == 0 && !settling -> /* no reply */
            settling = true; settled_at = seen_record; goto doubt
        :: process == 0 -> goto ended /* killed */
        fi };
ended: atomic {
    if
    :: process == 0 -> process = NODES; last = 0; goto connect
    :: else -> goto closed
    fi };
closed: skip
}

#define ARRIVES(i) \
    :: atomic { under_way[i] && MAY((i) / BATCHES, copies[i].of_index, copies[i].of_record) -> \
        put((i) / BATCHES, i, copies[i].of_index) }

#define SETTLEMENT_ARRIVES use_up(0, 0, settled_at); settled_at = 0

#endif

/* PostgreSQL inserts a record; the others overwrite an existing one. */
#ifdef STATEMENT
#define CAN_BE_CREATED(i) !has_record[i]
#else
#define CAN_BE_CREATED(i) true
#endif
#define CREATION_ARRIVES(i) \
    :: atomic { creation_is_late[i] && CAN_BE_CREATED(i) -> \
        creation_is_late[i] = false; has_record[i] = true; number[i] = 0; index_after[i] = 0 }

active proctype network() {
end: do
    ARRIVES(0) ARRIVES(1) ARRIVES(2) ARRIVES(3) ARRIVES(4) ARRIVES(5)
    :: atomic { settling -> SETTLEMENT_ARRIVES; settling = false }
#ifdef WITHOUT_ABANDONING_A_NAME
    CREATION_ARRIVES(0) CREATION_ARRIVES(1) CREATION_ARRIVES(2)
#endif
    od
}

#define REMOVE(i) :: atomic { has_record[i] -> has_record[i] = false; number[i] = 0; index_after[i] = 0 }

/* A record is removed: by an operator, or because some node's clock makes it look old. */
active proctype operator() {
end: if
    REMOVE(0) REMOVE(1) REMOVE(2)
    fi
}

init {
    atomic { run node(0); run node(1) }
}
