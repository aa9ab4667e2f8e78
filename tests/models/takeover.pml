/*
 * The takeover: two processes in turn serve one SQLite file with FIB_SYNCHRONOUS=full.
 *
 * The rule: only the process with the writer's lock serves. It rewrites and syncs what it reads at
 * its start before it serves. A commit names the index that it starts from, and a failed sync ends
 * the process. The high-water mark is written after the commit and before the answer, and a database
 * below its mark is not served from.
 *
 * At any moment a process is killed or stopped; the kernel writes pages back, fails to, and drops
 * pages that it believes to be written; a sync fails; the power is cut; and once the last commit is
 * removed, as by restoring an older copy. SPIN tries every order of these. The assertions are the
 * invariant and promises 1 to 3 of docs/reliability.md.
 *
 * WITH_A_DELETED_LOCK removes the lock, as if its file were deleted: the rest of the rule suffices
 * for promises 1 and 2. Each other macro removes one part of the rule, and an assertion fails.
 */

#define LAST 3
#ifdef WITH_A_DELETED_LOCK
#define STEPS 2 /* the last index */
#else
#define STEPS LAST
#endif
#define CUTS 1 /* power cuts */
#define NOBODY 255

/*
 * A commit is one frame of the WAL. Frame i holds index i; SQLite reads up to the first gap.
 */
bool cached[LAST + 1];  /* in the page cache, */
bool dirty[LAST + 1];   /* to be written by the next sync, */
bool on_disk[LAST + 1]; /* and on the disk */
bool pending_error[2]; /* whether the next sync of a process reports an earlier error */
byte mark, mark_on_disk;
byte lock = NOBODY;
byte cuts;
bool damaged;

/* For the assertions. */
bool was_answered[LAST + 1];
byte acknowledged; /* the largest */

#define INDEX (cached[1] -> (cached[2] -> (cached[3] -> 3 : 2) : 1) : 0)

#define WRITE_BACK(i) on_disk[i] = on_disk[i] || dirty[i]; dirty[i] = false

/* A write fails: the kernel marks the page clean, whether it was written or not. */
#define FAIL_WRITE_BACK(i) \
    if \
    :: on_disk[i] = on_disk[i] || dirty[i] \
    :: true \
    fi; \
    dirty[i] = false

#define DROP_BEHIND(i) \
    if \
    :: !cached[i - 1] -> cached[i] = false; on_disk[i] = false; dirty[i] = false \
    :: else \
    fi

inline drop_behind_a_gap() {
    DROP_BEHIND(2);
    DROP_BEHIND(3)
}

inline answer(i) {
    assert(!was_answered[i]); /* promise 2 */
    was_answered[i] = true;
#ifndef WITH_A_DELETED_LOCK
    assert(i > acknowledged && mark >= i); /* promise 3, and its evidence */
#endif
    acknowledged = (i > acknowledged -> i : acknowledged)
}

/* A process can die before each of its actions. */
#define IS_ALIVE (cuts == since)
#define OR_IT_DIES :: goto ended

#define SYNCED \
    if \
    :: atomic { IS_ALIVE && !pending_error[me] -> WRITE_BACK(1); WRITE_BACK(2); WRITE_BACK(3) } \
    :: atomic { IS_ALIVE -> \
        FAIL_WRITE_BACK(1); FAIL_WRITE_BACK(2); FAIL_WRITE_BACK(3); \
        pending_error[1 - me] = true; pending_error[me] = false }; \
        AFTER_A_FAILED_SYNC \
    OR_IT_DIES \
    fi

#ifdef WITHOUT_FAIL_STOP
#define AFTER_A_FAILED_SYNC skip
#else
#define AFTER_A_FAILED_SYNC goto ended
#endif

#if defined(WITHOUT_THE_LOCK) || defined(WITH_A_DELETED_LOCK)
#define MAY_SERVE true
#else
#define MAY_SERVE (lock == NOBODY)
#endif

#ifdef WITHOUT_EXPECTING_THE_INDEX
#define INDEX_IS_EXPECTED true
#else
#define INDEX_IS_EXPECTED (INDEX == index)
#endif

#ifdef WITHOUT_THE_MARK
#define IS_ABOVE_THE_MARK true
#else
#define IS_ABOVE_THE_MARK (index >= mark)
#endif

proctype process(byte me) {
    byte index, since;

end_stand_by:
    atomic { MAY_SERVE -> lock = me; since = cuts };

    /* Open the database. */
    if
    :: atomic { IS_ALIVE -> index = INDEX; pending_error[me] = false }
    OR_IT_DIES
    fi;
    if
    :: atomic { IS_ALIVE && IS_ABOVE_THE_MARK ->
#ifndef WITHOUT_REWRITING
        dirty[1] = cached[1]; dirty[2] = cached[2]; dirty[3] = cached[3]
#endif
       }
    :: atomic { IS_ALIVE && !IS_ABOVE_THE_MARK ->
#ifndef WITH_A_DELETED_LOCK
        assert(damaged); /* a database is never rejected without cause */
#endif
        index = 0; goto invalid }
    OR_IT_DIES
    fi;
    SYNCED;
    if
    :: atomic { IS_ALIVE && INDEX_IS_EXPECTED -> mark = index }
    :: IS_ALIVE && !INDEX_IS_EXPECTED -> goto ended /* another writer */
    OR_IT_DIES
    fi;

serve:
    if
    :: atomic { IS_ALIVE -> /* a read */
#ifndef WITH_A_DELETED_LOCK
        assert(index >= acknowledged) /* promise 3 */
#endif
       }; goto serve
    :: IS_ALIVE && index < STEPS -> skip /* a step */
    OR_IT_DIES
    fi;
#ifdef WITH_THE_MARK_FIRST
    if
    :: atomic { IS_ALIVE -> mark = index + 1 }
    OR_IT_DIES
    fi;
#endif
#ifdef WITH_THE_ANSWER_FIRST
    if
    :: atomic { IS_ALIVE -> mark = index + 1; answer(index + 1) }
    OR_IT_DIES
    fi;
#endif
    if
    :: atomic { IS_ALIVE && INDEX_IS_EXPECTED ->
        index++;
        cached[index] = true; dirty[index] = true; on_disk[index] = false }
    :: IS_ALIVE && !INDEX_IS_EXPECTED -> goto ended /* another writer */
    OR_IT_DIES
    fi;
#ifndef WITHOUT_SYNCS
    SYNCED;
#endif
#ifndef WITH_THE_ANSWER_FIRST
    if
    :: atomic { IS_ALIVE -> mark = index }
    OR_IT_DIES
    fi;
    if
    :: atomic { IS_ALIVE -> answer(index) }
    OR_IT_DIES
    fi;
#endif
    goto serve;

ended: /* the kernel releases the lock */
    atomic {
        lock = (lock == me -> NOBODY : lock);
        index = 0;
        goto end_stand_by };

invalid: skip /* waits for an operator */
}

active proctype kernel() {
end: do
    :: atomic { dirty[1] -> WRITE_BACK(1) }
    :: atomic { dirty[2] -> WRITE_BACK(2) }
    :: atomic { dirty[3] -> WRITE_BACK(3) }
    :: atomic { dirty[1] || dirty[2] || dirty[3] ->
        FAIL_WRITE_BACK(1); FAIL_WRITE_BACK(2); FAIL_WRITE_BACK(3);
        pending_error[0] = true; pending_error[1] = true }
    :: mark != mark_on_disk -> mark_on_disk = mark
    :: atomic { cached[1] && !dirty[1] && !on_disk[1] -> cached[1] = false; drop_behind_a_gap() }
    :: atomic { cached[2] && !dirty[2] && !on_disk[2] -> cached[2] = false; drop_behind_a_gap() }
    :: atomic { cached[3] && !dirty[3] && !on_disk[3] -> cached[3] = false }
    od
}

/* Unsynced pages may be lost; the mark is an earlier one, or torn. */
active proctype power() {
end: do
    :: atomic { cuts < CUTS && !damaged ->
        cuts++;
        lock = NOBODY;
        FAIL_WRITE_BACK(1); FAIL_WRITE_BACK(2); FAIL_WRITE_BACK(3);
        cached[1] = on_disk[1]; cached[2] = on_disk[2]; cached[3] = on_disk[3];
        drop_behind_a_gap();
        if
        :: mark = mark_on_disk
        :: mark = 0
        fi;
        mark_on_disk = mark;
        assert(INDEX >= acknowledged) /* promise 1 */ }
    od
}

#ifndef WITH_A_DELETED_LOCK
/* Only while no process has the database open, and before any power cut, which may lose the mark. */
active proctype operator() {
end: if
    :: atomic { lock == NOBODY && cuts == 0 && INDEX > 0 ->
        damaged = true;
        if
        :: INDEX == 3 -> cached[3] = false; on_disk[3] = false; dirty[3] = false
        :: INDEX == 2 -> cached[2] = false; on_disk[2] = false; dirty[2] = false
        :: INDEX == 1 -> cached[1] = false; on_disk[1] = false; dirty[1] = false
        fi }
    fi
}
#endif

init {
    atomic { run process(0); run process(1) }
}
