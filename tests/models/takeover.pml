/*
 * The takeover: two processes serve one SQLite file, one after the other, at FIB_SYNCHRONOUS=full.
 *
 * The rule: the process that has the writer's lock is the only one that serves. What it reads at its
 * start it writes again, and syncs, before it serves from it. A commit names the index that it
 * starts from, and a failed sync ends the process. The high-water mark is written after the commit
 * and before the answer, and a database below its mark is not served from.
 *
 * At any moment a process is killed, or stopped for as long as you like; the kernel writes pages
 * back, fails to, and drops those that it takes for written; a sync fails; the power is cut; and once
 * the last commit is taken away, as an older copy of the database does. SPIN tries all orders of
 * these. The assertions are the invariant and promises 1 to 3 of docs/reliability.md.
 *
 * WITH_A_DELETED_LOCK takes the lock away, as who deletes its file does: the rest of the rule is
 * enough for promises 1 and 2. Each other macro takes away one part, and one of the assertions fails.
 */

#define LAST 3
#ifdef WITH_A_DELETED_LOCK
#define STEPS 2 /* the index at which no more steps are asked for */
#else
#define STEPS LAST
#endif
#define CUTS 1 /* of power */
#define NOBODY 255

/*
 * A commit is one frame of the WAL. Frame i leads to index i, and SQLite reads up to the first gap.
 */
bool cached[LAST + 1];  /* in the page cache, */
bool dirty[LAST + 1];   /* to be written by the next sync, */
bool on_disk[LAST + 1]; /* and on the disk */
bool owed[2]; /* whether a process is to get an error that its files have had, by its next sync */
byte mark, mark_on_disk;
byte lock = NOBODY;
byte cuts;
bool damaged;

/* The judge. */
bool was_answered[LAST + 1];
byte acknowledged; /* the largest of them */

#define INDEX (cached[1] -> (cached[2] -> (cached[3] -> 3 : 2) : 1) : 0)

#define WRITE_BACK(i) on_disk[i] = on_disk[i] || dirty[i]; dirty[i] = false

/* The disk fails, and the kernel takes the page for written: it is, or it is not. */
#define GIVE_UP(i) \
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
    assert(i > acknowledged && mark >= i); /* promise 3, and evidence of it */
#endif
    acknowledged = (i > acknowledged -> i : acknowledged)
}

/* Each step of a process takes place while it lives; it may end instead at any of them. */
#define LIVES (cuts == since)
#define OR_IT_ENDS :: goto ended

#define SYNCED \
    if \
    :: atomic { LIVES && !owed[me] -> WRITE_BACK(1); WRITE_BACK(2); WRITE_BACK(3) } \
    :: atomic { LIVES -> GIVE_UP(1); GIVE_UP(2); GIVE_UP(3); owed[1 - me] = true; owed[me] = false }; \
        AFTER_A_FAILED_SYNC \
    OR_IT_ENDS \
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

#ifdef WITHOUT_NAMING_THE_INDEX
#define IS_NAMED true
#else
#define IS_NAMED (INDEX == index)
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

    /* It opens the database. */
    if
    :: atomic { LIVES -> index = INDEX; owed[me] = false }
    OR_IT_ENDS
    fi;
    if
    :: atomic { LIVES && IS_ABOVE_THE_MARK ->
#ifndef WITHOUT_WRITING_AGAIN
        dirty[1] = cached[1]; dirty[2] = cached[2]; dirty[3] = cached[3]
#endif
       }
    :: atomic { LIVES && !IS_ABOVE_THE_MARK ->
#ifndef WITH_A_DELETED_LOCK
        assert(damaged); /* a database is not found invalid for nothing */
#endif
        index = 0; goto invalid }
    OR_IT_ENDS
    fi;
    SYNCED;
    if
    :: atomic { LIVES && IS_NAMED -> mark = index }
    :: LIVES && !IS_NAMED -> goto ended /* another writer */
    OR_IT_ENDS
    fi;

serve:
    if
    :: atomic { LIVES -> /* a read */
#ifndef WITH_A_DELETED_LOCK
        assert(index >= acknowledged) /* promise 3 */
#endif
       }; goto serve
    :: LIVES && index < STEPS -> skip /* a step */
    OR_IT_ENDS
    fi;
#ifdef WITH_THE_MARK_FIRST
    if
    :: atomic { LIVES -> mark = index + 1 }
    OR_IT_ENDS
    fi;
#endif
#ifdef WITH_THE_ANSWER_FIRST
    if
    :: atomic { LIVES -> mark = index + 1; answer(index + 1) }
    OR_IT_ENDS
    fi;
#endif
    if
    :: atomic { LIVES && IS_NAMED ->
        index++;
        cached[index] = true; dirty[index] = true; on_disk[index] = false }
    :: LIVES && !IS_NAMED -> goto ended /* another writer */
    OR_IT_ENDS
    fi;
#ifndef WITHOUT_SYNCS
    SYNCED;
#endif
#ifndef WITH_THE_ANSWER_FIRST
    if
    :: atomic { LIVES -> mark = index }
    OR_IT_ENDS
    fi;
    if
    :: atomic { LIVES -> answer(index) }
    OR_IT_ENDS
    fi;
#endif
    goto serve;

ended: /* with it the kernel frees the lock */
    atomic {
        lock = (lock == me -> NOBODY : lock);
        index = 0;
        goto end_stand_by };

invalid: skip /* a person must look */
}

active proctype kernel() {
end: do
    :: atomic { dirty[1] -> WRITE_BACK(1) }
    :: atomic { dirty[2] -> WRITE_BACK(2) }
    :: atomic { dirty[3] -> WRITE_BACK(3) }
    :: atomic { dirty[1] || dirty[2] || dirty[3] ->
        GIVE_UP(1); GIVE_UP(2); GIVE_UP(3); owed[0] = true; owed[1] = true }
    :: mark != mark_on_disk -> mark_on_disk = mark
    :: atomic { cached[1] && !dirty[1] && !on_disk[1] -> cached[1] = false; drop_behind_a_gap() }
    :: atomic { cached[2] && !dirty[2] && !on_disk[2] -> cached[2] = false; drop_behind_a_gap() }
    :: atomic { cached[3] && !dirty[3] && !on_disk[3] -> cached[3] = false }
    od
}

/* What was written and not synced is on the disk or not, and the mark is some earlier one, or torn. */
active proctype power() {
end: do
    :: atomic { cuts < CUTS && !damaged ->
        cuts++;
        lock = NOBODY;
        GIVE_UP(1); GIVE_UP(2); GIVE_UP(3);
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
/* While nobody has the database open: the mark tells it, unless a power cut took that as well. */
active proctype hand() {
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
