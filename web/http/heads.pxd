# What Cython makes C of in heads.py, which it compiles as it stands: the look-ups. Uncompiled it is
# the same program, and slower.

cimport cython

cpdef Py_ssize_t mark(bytes name)

cdef class Heads:
    cdef object _table
    cdef object _answered
    cdef object _origins
    cdef object _hosts
    cdef frozenset _varying
    cdef readonly dict counting
    cdef readonly bytes marks
    cdef readonly dict known
    cdef list _seen
    cdef readonly dict _read

    @cython.locals(key=Py_hash_t, place=Py_ssize_t)
    cpdef remember(self, bytes data, object head)
    cpdef read(self, bytes line, list fields, object keep_alive, object parsed)
