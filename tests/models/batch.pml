/*
 * The shared batch: two nodes, each asked for two batches, step one sequence in an engine.
 *
 * The rule: a process has one identity, and makes its record once, at its first connect; a batch is
 * done only if that record is there; a node that has sent a batch says nothing of its steps before
 * it knows.
 *
 * At any moment a reply is lost, also the one of a record that was made, a copy of what was sent arrives (again), the engine answers with an
 * error, a record is removed, a process is killed and another one takes its place. SPIN tries all
 * orders of these. The assertions are promises 1 and 2 of docs/reliability.md.
 *
 * The engine's own rule is one of
 *   SCRIPT      Redis: one script tests the record and the conditions, writes, and replies with both
 *   STATEMENT   PostgreSQL: one statement tests and writes; what came of it is asked by another one
 *   REVISIONS   etcd: a transaction compares the revisions that were read before
 *
 * Each macro WITHOUT_... takes away one part, and one of the assertions fails.
 */

#define NODES 2
#define BATCHES 2 /* of each node */
#define PROCESSES (NODES + 1) /* the first one's is killed, or ends, and another one takes its place */
#define SENT (PROCESSES * BATCHES)
#define ANYWHERE 255 /* a batch without a condition */

mtype = { nothing, answered, not_stepped };

/* The engine. */
byte index;
bool there[PROCESSES];    /* whether the record of a process is there; in it: */
byte number[PROCESSES];   /*   the number of its last batch, */
byte index_after[PROCESSES];  /*   and the index after that */
#ifdef WITHOUT_GIVING_A_NAME_UP
bool making_is_late[PROCESSES]; /* whether a copy of its making is under way */
#endif

/* What was sent: the batch `number` of a process is at process * BATCHES + number - 1. */
byte expected[SENT];
byte batch_of[SENT];
bool late[SENT]; /* whether a copy is under way: it may arrive at any time, and more than once */

/* The judge. */
byte done[NODES * BATCHES];  /* how often a batch was done, */
byte led[NODES * BATCHES];   /* and where that led */
mtype said[NODES * BATCHES]; /* what its clients were answered */

/* Index + 1, in the transaction of a batch. */
inline move(sent) {
    assert(expected[sent] == ANYWHERE || expected[sent] == index);
    index++;
    done[batch_of[sent]]++;
    led[batch_of[sent]] = index;
    assert(done[batch_of[sent]] == 1);           /* once, */
    assert(said[batch_of[sent]] != not_stepped)  /* and never after "nothing has stepped" */
}

inline say_reached(to) {
    said[batch] = answered;
    assert(done[batch] == 1 && led[batch] == to); /* acknowledged: committed, and under this index */
    led[batch] = 0
}

inline say_not_stepped() {
    said[batch] = not_stepped;
    assert(done[batch] == 0)
}

/*
 * The record is made, once: if there is no reply, its name is given up, and another one is made. What
 * was sent may make the one of the first name at any time, of which no batch will ever be sent.
 */
inline make_the_record() {
    if
    :: true
#ifdef WITHOUT_GIVING_A_NAME_UP
    :: making_is_late[process] = true
#endif
    fi;
    there[process] = true
}

/* What a batch begins with: a number, and perhaps the condition of its steps. */
inline begin() {
    last++;
    sent = process * BATCHES + last - 1;
    batch = me * BATCHES + begun;
    begun++;
    batch_of[sent] = batch;
    was_sent = false;
    if
    :: expected[sent] = ANYWHERE
    :: expected[sent] = index
    fi
}

#ifdef WITHOUT_ONE_NUMBER
#define TAKE_ANOTHER_NUMBER \
    if \
    :: last < BATCHES -> \
        last++; batch_of[sent + 1] = batch; expected[sent + 1] = expected[sent]; sent++ \
    :: else \
    fi
#else
#define TAKE_ANOTHER_NUMBER skip
#endif

#ifdef WITHOUT_CONDITIONS
#define ALLOWED(sent, at) true
#else
#define ALLOWED(sent, at) (expected[sent] == ANYWHERE || expected[sent] == at)
#endif

#ifdef WITHOUT_THE_INDEX_IN_THE_RECORD
#define AFTER(noted) index
#else
#define AFTER(noted) noted
#endif

#if defined(SCRIPT) || defined(STATEMENT)

/* Whether the engine does a batch. */
#define IS_NEW(whose, sent) (number[whose] < (sent) % BATCHES + 1)
#if defined(WITHOUT_A_RECORD_NO_BATCH)
#define MAY(whose, sent) ((!there[whose] || IS_NEW(whose, sent)) && ALLOWED(sent, index))
#elif defined(WITHOUT_NUMBERS)
#define MAY(whose, sent) (there[whose] && ALLOWED(sent, index))
#else
#define MAY(whose, sent) (there[whose] && IS_NEW(whose, sent) && ALLOWED(sent, index))
#endif

inline commit(whose, sent) {
    move(sent);
    there[whose] = true;
    number[whose] = (sent) % BATCHES + 1;
    index_after[whose] = index
}

inline take_what_the_record_says() {
    if
    :: !there[process] && was_sent -> goto ended /* unanswered: nobody can know what came of it */
    :: !there[process] && !was_sent -> say_not_stepped(); goto ended /* as another process */
    :: there[process] && number[process] == last -> say_reached(AFTER(index_after[process])); goto next
    :: there[process] && number[process] != last -> say_not_stepped(); goto next
    fi
}

proctype node(byte me) {
    byte process = me, last, sent, batch, begun;
    bool was_sent;
connect: atomic {
    make_the_record() };
next: atomic {
    if
    :: begun < BATCHES -> begin()
    :: else -> there[process] = false; goto closed /* told to stop */
    fi };
ask:    atomic {
        if
        :: true -> /* the reply arrives */
            if
            :: MAY(process, sent) -> commit(process, sent); take_what_the_record_says()
#ifdef STATEMENT
            :: else -> goto ask_the_record
#else
            :: else -> take_what_the_record_says()
#endif
            fi
        :: true -> /* no reply: it may have arrived, or may yet */
            late[sent] = true;
            was_sent = true;
#ifdef WITHOUT_ASKING
            say_reached(index + 1);
            goto next
#endif
            TAKE_ANOTHER_NUMBER;
#ifdef WITHOUT_MAKING_THE_RECORD_ONCE
            if
            :: there[process]
            :: !there[process] -> there[process] = true; number[process] = 0
            fi;
#endif
            goto ask
        :: true -> /* the engine's error: what arrived was not done */
#ifdef WITHOUT_SILENCE_IN_DOUBT
            say_not_stepped();
            goto next
#else
            if
            :: was_sent -> goto ask
            :: else -> say_not_stepped(); goto next
            fi
#endif
        :: process == 0 -> late[sent] = true; goto ended /* killed */
        fi };
#ifdef STATEMENT
ask_the_record: atomic {
        if
        :: true -> take_what_the_record_says()
        :: was_sent -> goto ask
        :: !was_sent -> say_not_stepped(); goto next
        :: process == 0 -> goto ended /* killed */
        fi };
#endif
ended: atomic {
    if
    :: process == 0 -> process = NODES; last = 0; goto connect
    :: else -> goto closed
    fi };
closed: skip
}

#define ARRIVES(i) :: atomic { late[i] && MAY((i) / BATCHES, i) -> commit((i) / BATCHES, i) }

#else /* REVISIONS */

/*
 * A revision is told here by what was written with it, which is never written again: the index, and
 * of a record its number + 1, or 0 where there is none.
 */
#define REVISION(whose) (there[whose] -> number[whose] + 1 : 0)

typedef Transaction { byte of_index; byte of_record };
Transaction copies[SENT]; /* one of each batch is under way, */
bool under_way[SENT];     /* or none */

/* Whether the engine does a transaction: the revisions are those that were read. */
#ifdef WITHOUT_THE_REVISION_OF_THE_INDEX
#define MAY(whose, of_index, of_record) (REVISION(whose) == of_record)
#else
#define MAY(whose, of_index, of_record) (REVISION(whose) == of_record && index == of_index)
#endif

/* Those that are under way can do nothing from now on, and need not be kept. */
#ifdef WITHOUT_THE_REVISION_OF_THE_INDEX
#define FORGET_COPIES skip
#else
#define FORGET_COPIES FORGET(0); FORGET(1); FORGET(2); FORGET(3); FORGET(4); FORGET(5)
#define FORGET(i) under_way[i] = 0; copies[i].of_index = 0; copies[i].of_record = 0
#endif

inline put(whose, sent, read) {
    assert(index == read); /* else the index would fall */
    move(sent);
    FORGET_COPIES;
    there[whose] = true;
    number[whose] = (sent) % BATCHES + 1;
    index_after[whose] = index
}

inline look() {
    seen = index;
    seen_record = REVISION(process);
    seen_after = index_after[process];
    is_new = true
}

inline leave_a_copy() {
    copies[sent].of_index = seen;
    copies[sent].of_record = seen_record;
    under_way[sent] = true
}

proctype node(byte me) {
    byte process = me, last, sent, batch, begun, seen, seen_record, seen_after;
    bool was_sent, is_new;
connect: atomic {
    make_the_record();
    look() };
next: atomic {
    if
    :: begun < BATCHES -> begin(); look(); is_new = false
    :: else -> there[process] = false; goto closed /* told to stop */
    fi };
ask:    atomic {
        if
        :: seen_record == 0 && !was_sent -> say_not_stepped(); goto ended /* as another process */
        :: seen_record == 0 && was_sent ->
#ifdef WITHOUT_MAKING_THE_RECORD_ONCE
            there[process] = true;
            look();
            goto ask
#else
            goto ended /* unanswered: nobody can know what came of it */
#endif
        :: seen_record == last + 1 -> say_reached(AFTER(seen_after)); goto next
        :: seen_record && seen_record != last + 1 && !ALLOWED(sent, seen) ->
            if
            :: is_new -> say_not_stepped(); goto next
            :: else -> goto reread
            fi
        :: else
        fi;
        if
        :: true -> /* the reply arrives, with where both are */
            if
            :: MAY(process, seen, seen_record) -> put(process, sent, seen)
            :: else
            fi;
            look();
            goto ask
        :: !under_way[sent] -> /* no reply: it may have arrived, or may yet */
            leave_a_copy();
            was_sent = true;
#ifdef WITHOUT_ASKING
            say_reached(seen + 1);
            goto next
#endif
            TAKE_ANOTHER_NUMBER;
            goto reread
        :: true -> /* an error is the reply: where its space ends etcd does what it says it did not */
            if
            :: MAY(process, seen, seen_record) -> put(process, sent, seen)
            :: true
            fi;
#ifdef WITHOUT_DOUBT_ABOUT_ERRORS
            if
            :: was_sent -> goto reread
            :: else -> say_not_stepped(); goto next
            fi
#else
            was_sent = true;
            goto reread
#endif
        :: process == 0 && !under_way[sent] -> leave_a_copy(); goto ended /* killed */
        fi };
reread: atomic {
        if
        :: look(); goto ask
        :: !was_sent -> say_not_stepped(); goto next /* unavailable */
#ifdef WITHOUT_SILENCE_IN_DOUBT
        :: was_sent -> say_not_stepped(); goto next
#endif
        :: process == 0 -> goto ended
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

#endif

/* PostgreSQL inserts a record, the others write one over what is there. */
#ifdef STATEMENT
#define CAN_BE_MADE(i) !there[i]
#else
#define CAN_BE_MADE(i) true
#endif
#define MAKING_ARRIVES(i) \
    :: atomic { making_is_late[i] && CAN_BE_MADE(i) -> \
        making_is_late[i] = false; there[i] = true; number[i] = 0; index_after[i] = 0 }

active proctype network() {
end: do
    ARRIVES(0) ARRIVES(1) ARRIVES(2) ARRIVES(3) ARRIVES(4) ARRIVES(5)
#ifdef WITHOUT_GIVING_A_NAME_UP
    MAKING_ARRIVES(0) MAKING_ARRIVES(1) MAKING_ARRIVES(2)
#endif
    od
}

#define REMOVE(i) :: atomic { there[i] -> there[i] = false; number[i] = 0; index_after[i] = 0 }

/* A record is removed: by hand, or because it is old by somebody's clock. */
active proctype hand() {
end: if
    REMOVE(0) REMOVE(1) REMOVE(2)
    fi
}

init {
    atomic { run node(0); run node(1) }
}
