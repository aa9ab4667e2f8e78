"""HTTP, which knows of endpoints only that a table has them.

What is kept between the bytes that come and the bytes that go, with what each saves of the server's
processor. The plainest read took 6.2 us then, and the plainest step 7.5, of 100 connections on one
core. A further one is to have its figure here.

    Heads.known             1.3 us of the plainest request, 2.0 of a browser's: it is not parsed
    Heads._seen             0.3 us of a head that comes once, and those in known are not driven out
    Heads._read             8.9 us of a head that differs in what does not count
    negotiation._preferred  2.1 us of a request that differs in what counts, as /numbers/{index}
    Request.latest          0.2 us of a read without conditions: that of its form is at hand
    Service.latest          0.5 us of a read: the answer is made and rendered once for each index
    Answer._pieces          0.4 us of an answer that is the same to all, as /health
    ServerHeaders.formats   0.7 us of an answer with a number: its headers are formatted, not joined
    Hub.lines               the fields that all answers have, joined once a second
    sequence._unmet         1.9 us of a step whose condition does not hold
    Service.renderings      220 us of /status, 700 us of /metrics
    Head.logged             0.3 us of a line of the access log, 2.1 of one in JSON
"""
