"""HTTP: it knows the endpoints only through the table.

Each of these caches, between request bytes and answer bytes, saves processor time. When this was
measured, with 100 connections on one core, the simplest read took 6.2 us and the simplest step 7.5.
A new cache needs its figure here.

    Heads.known             1.3 us of the simplest request, 2.0 of a browser's: no parsing
    Heads._seen             0.3 us of a head seen once, which then evicts none from known
    Heads._read             8.9 us of a head that differs only in what does not matter
    negotiation.preferred   2.1 us of a request that differs in what matters (/numbers/{index})
    Request.latest          0.2 us of a read without conditions: no look-up by form
    Service.latest          0.5 us of a read: its answer is rendered once for each index
    Answer._pieces          0.4 us of an answer that is the same for all, such as /health
    ServerHeaders.formats   0.7 us of an answer with a number: its headers are formatted, not joined
    Hub.lines               the headers that all answers share, joined once a second
    sequence._unmet         1.9 us of a step whose condition does not hold
    Service.renderings      220 us of /status, 700 us of /metrics
    Head.logged             0.3 us of a line in the access log, 2.1 of one in JSON
"""
