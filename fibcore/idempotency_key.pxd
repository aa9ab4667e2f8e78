# The C types of idempotency_key.py, which Cython compiles unchanged. Uncompiled it does the same,
# more slowly.

cimport cython

cdef int _QUOTE, _COLON, _ZERO, _NINE
cdef bytes _RANDOM
cdef object _EMPTY


@cython.final
cdef class Key:
    cdef readonly long long since
    cdef readonly bytes text
    cdef bytes _digest


@cython.locals(
    end=Py_ssize_t, at=Py_ssize_t, length=Py_ssize_t, size=Py_ssize_t, place=Py_ssize_t,
    since=cython.ulonglong,
)
cpdef Key key_of(bytes field)
