# What Cython makes C of in heads.py, which it compiles as it stands: the look-ups. Uncompiled it is
# the same program, and slower.

cimport cython

from fibcore.idempotency_key cimport key_of

cpdef Py_ssize_t mark(bytes name)


@cython.locals(
    text="const unsigned char*", at=Py_ssize_t, end=Py_ssize_t, size=Py_ssize_t, first=int, last=int
)
cdef tuple _cut(bytes data, bytes begin)

cdef class Heads:
    cdef object _table
    cdef object _answered
    cdef object _origins
    cdef object _hosts
    cdef frozenset _varying
    cdef readonly dict counting
    cdef readonly bytes marks
    cdef readonly dict known
    cdef dict _templates
    cdef dict _holes
    cdef list _seen
    cdef readonly dict _read

    cpdef remember(self, bytes data, object head)

    @cython.locals(key=Py_hash_t, place=Py_ssize_t)
    cdef bint _is_repeated(self, object data)

    @cython.locals(begin=bytes, name=bytes, template=tuple, value=bytes)
    cpdef fill(self, bytes data)
    cpdef read(self, bytes line, list fields, object keep_alive, object parsed)
