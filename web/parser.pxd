# What Cython makes C of in parser.py, which it compiles as it stands: the fields of a parser, and
# the two functions that nobody else calls. Uncompiled it is the same program, and slower.

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

    cdef Py_ssize_t _end(self, bytes data, Py_ssize_t at)
    cdef _feed(self, bytes piece)
