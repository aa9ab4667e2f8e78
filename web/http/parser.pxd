# What Cython makes C of in parser.py, which it compiles as it stands: the fields of a parser, and
# what its methods take and count. Uncompiled it is the same program, and slower.

cimport cython

cdef class Parser:
    cdef object _heads
    cdef object _counting
    cdef object _parser
    cdef bytes _target
    cdef list _fields
    cdef Py_ssize_t _count
    cdef Py_ssize_t _framing
    cdef object _left
    cdef bytes _tail
    cdef public object head
    cdef public bytes raw
    cdef public object body
    cdef public bint whole

    @cython.locals(room=Py_ssize_t, end=Py_ssize_t, piece=bytes)
    cpdef Py_ssize_t feed(self, bytes data, Py_ssize_t at=*)

    @cython.locals(found=Py_ssize_t)
    cdef Py_ssize_t _end(self, bytes data, Py_ssize_t at)
    cdef _feed(self, bytes piece)
    cpdef on_header(self, bytes name, bytes value)

    @cython.locals(begin=Py_ssize_t)
    cpdef on_headers_complete(self)
