"""The one layer that makes a call to a flaky, metered endpoint dependable.

    fallback( stored reply( retry( hedge( breaker( limit( timeout( call )))))))

From the inside out:

- **timeout** bounds one attempt, since no client's own covers every hang. Nothing else waits in it.
- **limit** (places at once, requests and tokens a minute) is around each attempt, not around the
  call: a retry and a hedge are requests too, and whoever pauses before a retry holds no place.
- **breaker** counts and admits attempts: an endpoint that goes down in the middle of somebody's
  retries is left alone at once, and a probe is one request, not a whole series of retries. It is
  asked before the call queues up for a place and again when it has one. Other breakers (purgatory,
  pybreaker) let every call through while they are half open, and share their state by Redis only.
- **hedge** runs one more admitted attempt beside one that is slow. It takes only what is free: it
  neither waits for a place nor probes.
- **retry** (tenacity's policies) is outside of them, so that the wait between attempts holds
  nothing. What the breaker or a limit refuses is not tried again here: waiting is the limit's job.
- **stored reply** needs none of this: what was paid once is neither limited nor counted.
- **fallback** is outermost, in the route node of the graph: it is a call to another candidate, with
  that one's own layer, bill and share of the budget, and the controller is told.

Limits and breaker are one `EndpointState` for each endpoint, changed in one step by a store that
threads, event loops, processes or machines share. Rates are kept by moments, not by a row for each
token (as pyrate-limiter does in SQLite) nor within one event loop (aiolimiter). It is decided in
generators of `steps`, so that there is one logic for synchronous and asynchronous callers; every
wait ends with the deadline, and whoever is cancelled gives its place, turn and probe back.
"""
