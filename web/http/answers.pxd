# The C types of answers.py, which Cython compiles unchanged. Uncompiled, the module does the same,
# more slowly.

cdef class ServerHeaders:
    cdef readonly bytes text
    cdef readonly dict formats

cdef class Answer:
    cdef readonly object status
    cdef ServerHeaders _lines
    cdef tuple _pieces
    cpdef tuple body(self)
    cpdef tuple render(self, ServerHeaders lines)

cdef class PlainAnswer(Answer):
    cdef object _headers
    cdef tuple _body

cdef class Form:
    cdef readonly object representation
    cdef readonly tuple headers
    cdef bytes _tag
    cdef bytes _before
    cdef bytes _after
    cdef Py_ssize_t _around
    cpdef tuple render(self, ServerHeaders lines, object index, bytes digits)

cdef class NumberAnswer(Answer):
    cdef Form _form
    cdef readonly bytes digits
    cdef readonly object index

cdef class Number:
    cdef readonly bytes cache_control
    cdef readonly Form json
    cdef readonly Form text
    cdef readonly dict wrapped
    cpdef Form form(self, object index, object representation, bint wraps)
