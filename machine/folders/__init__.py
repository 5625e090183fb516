"""Host folders in a machine: an NFSv3 server of our own for the one guest that it belongs to.

QEMU starts it for each connection that the guest makes to 10.0.2.100:2049 (guestfwd), with the connection as its
standard input. So nothing listens on the host, the server runs with the user's rights, and it ends with the connection.
The guest's kernel connects again after a suspend, or when the server was killed, and goes on where it was.

    server        the process: one connection, its programs, its log
    slots         how many of them there may be
    rpc           RFC 5531: records, calls and replies
    xdr           RFC 4506: how values are written
    mountd        RFC 1813, appendix I: from a folder's path to its first handle
    nfs3          RFC 1813: the 22 procedures
    export        the folder itself: what can be reached in it, and how
    replay        calls that only repeat what the host did, for file watchers
    changes       what the guest changed, for the helper
    watching      the helper's part: what programs in containers are told
    trees         which folders containers bind
    player        the program in the guest that repeats
    inotify       what the host's system tells
    handles       what a handle means, kept over restarts
    mount_spec    what --mount says
    installation  what of this program no guest may write
    binds         containers that bind a folder which isn't shared
    attributes    what a file is, as NFS has it, and how it is known again
"""
