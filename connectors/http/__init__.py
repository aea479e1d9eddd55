"""Reading over HTTP: one client for every source, with limits on everything a server can do wrong.

specs        what a source file may say: credentials, paging, limits (light, pydantic alone)
source       a source and a stream as their file declares them (light)
records      a page taken apart into raw records, none of them decoded
pagination   which request follows a page
limits       rate pools and what servers say about their own
shared       a rate pool in PostgreSQL, for all processes together
errors       status, body or exception to failure class
auth         credentials put on a request at the last moment
oauth        access tokens: fetched when needed, one for all threads and processes
token_client what OAuth2 is on the wire, by authlib
vault        tokens kept in the warehouse, encrypted
login        signing in by a browser
signing      requests that are signed one by one: HMAC, AWS SigV4
transport    httpx over a network that keeps a deadline and looks where it connects
client       one request with its retries, waits, redirects and size limit
children     a stream below another one: its pages for every record of its parent
seams        where a long ordered read may commit
reader       the connector: check, discover, read

Importing this package loads none of them.
"""
