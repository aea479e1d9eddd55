"""Programs that emit streams: what the kinds `singer` and `airbyte` share. No protocol is known here.

A kind gives a `Program` (connectors.process.connector) and opens `ProcessConnector(source_name, program)`. Its spec
classes derive from `ProcessConnectorSpec` and `ProcessStreamSpec` (connectors.process.specs), and its `Kind` says
`reads_together=True`. `Program.dialect()` makes one `Dialect` a run (connectors.process.session):

- `source_name(stream)`: the program's own name of a stream.
- `prepare(joined, common, place)`: writes 0600 files with `place.file(name, text)` and returns the `Command`.
  `joined[i].position` is the connector state that the stream committed last: the `data` of a `State`, or `{}`.
  `common.positions()` has those of the source's other streams, `common.position()` (`{"data": ..., "streams": [...]}`
  or `{}`) the last one given for all streams. A short command runs with
  `with Child(place, command, limits) as child: child.output(limit); child.finish()`.
- `decode(line)`: the line's `messages` (connectors.process.messages): `Record(stream, raw body)`, `Types`, `State`,
  `Complete`, `Failed`, `Broken`, `Batch`, `Replaces`, `Note`; one, several or None.
  msgspec.Raw keeps the body undecoded.
- `failure(ending)`: the error of the ended process; `failures.failure(where, ending)` knows signals and usual words.

Each stream runs through the engine's one lifecycle in a thread of its own (connectors.sync.together). A `State` of a
stream seals that stream; a `State(stream=None)` seals all of them, is kept with their records in one transaction and
shown as stream `_shared` (docs/decisions/0007-shared-states.md). `Complete(stream)` commits a stream that sends no
state and ends its sync while the process goes on; it is ignored where the state is shared. `Failed(stream=None)` wins
over the exit code. What was not sealed when the run fails is dropped and read again.
"""
