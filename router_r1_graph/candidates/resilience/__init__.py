"""The one layer that makes calls to a flaky, metered endpoint dependable.

    fallback( stored reply( retry( hedge( breaker( limit( timeout( call )))))))

From the inside out:

- **timeout** bounds one attempt, since no client's own covers every hang. No other wait is in it.
- **limit** (places at once, requests and tokens a minute) is around each attempt, not around the
  call: a retry and a hedge are requests too, and a call that waits for a retry holds no place.
- **breaker** counts and admits attempts: if an endpoint goes down in the middle of a call's
  retries, the retries stop at once, and a probe is one request, not a whole series of retries. It
  is asked before the call queues up for a place and again when it has one. Other breakers
  (purgatory, pybreaker) let every call through while they are half open, and share their state by
  Redis only.
- **hedge** runs one more admitted attempt beside one that is slow. It takes only what is free: it
  neither waits for a place nor probes.
- **retry** (tenacity's policies) is outside of them, so that the wait between attempts holds
  nothing. An attempt that the breaker or a limit refuses is not repeated: limits do the waiting.
- **stored reply** needs none of this: it was paid once, and is neither limited nor counted.
- **fallback** is outermost, in the route node of the graph: it is a call to another candidate, with
  that one's own layer, bill and share of the budget, and the controller sees that it replied.

Limits and breaker are one `EndpointState` for each endpoint, changed in one step by a store that
threads, event loops, processes or machines share. Rates are kept by moments, not by a row for each
token (as pyrate-limiter does in SQLite) nor within one event loop (aiolimiter). It is decided in
generators of `steps`, so that there is one logic for synchronous and asynchronous callers; every
wait ends with the deadline, and a cancelled call gives its place, turn and probe back.
"""
