# What Cython makes C of in parser.py, which it compiles as it stands: the fields of a parser, and
# what its methods take and count. Uncompiled it is the same program, and slower.

cimport cython

from web.http.heads cimport Heads, mark

cdef class Parser:
    cdef Heads _heads
    cdef object _parser
    cdef bytes _target
    cdef list _fields
    cdef Py_ssize_t _room
    cdef Py_ssize_t _framing
    cdef object _left
    cdef bytes _tail
    cdef public object head
    cdef public bytes raw
    cdef public object body
    cdef public bint whole

    cpdef begin(self)
    cpdef request(self, bytes data)

    @cython.locals(room=Py_ssize_t, end=Py_ssize_t, piece=bytes)
    cpdef Py_ssize_t feed(self, bytes data, Py_ssize_t at=*)

    @cython.locals(found=Py_ssize_t)
    cdef Py_ssize_t _end(self, bytes data, Py_ssize_t at)
    cdef _feed(self, bytes piece)
    cpdef on_message_begin(self)
    cpdef on_url(self, bytes url)

    @cython.locals(counting=dict)
    cpdef on_header(self, bytes name, bytes value)

    @cython.locals(begin=Py_ssize_t, end=Py_ssize_t)
    cpdef on_headers_complete(self)
    cpdef on_message_complete(self)
