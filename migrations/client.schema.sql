CREATE TABLE account (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sealed BLOB NOT NULL
) STRICT;

CREATE TABLE command (
    submit_id BLOB PRIMARY KEY,
    room INTEGER NOT NULL REFERENCES room (id),
    position INTEGER NOT NULL,
    live INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX command_live ON command (position) WHERE live = 1;

CREATE INDEX command_room ON command (room);

CREATE TABLE device (
    id INTEGER PRIMARY KEY,
    tag BLOB NOT NULL UNIQUE,
    sealed BLOB NOT NULL
) STRICT;

CREATE TABLE gap (
    room INTEGER NOT NULL REFERENCES room (id),
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    -- 0 expired, 1 lost by the node, 2 cannot be decrypted here
    reason INTEGER NOT NULL,
    PRIMARY KEY (room, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE group_row (
    room INTEGER NOT NULL REFERENCES room (id),
    tag BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (room, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE inbox (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    incarnation BLOB NOT NULL,
    seq INTEGER NOT NULL
) STRICT;

CREATE TABLE key_package (
    reference BLOB PRIMARY KEY,
    suite INTEGER NOT NULL,
    last_resort INTEGER NOT NULL,
    made_ms INTEGER NOT NULL,
    not_after_ms INTEGER NOT NULL,
    uploaded INTEGER NOT NULL,
    public BLOB NOT NULL,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE message (
    room INTEGER NOT NULL REFERENCES room (id),
    device INTEGER NOT NULL REFERENCES device (id),
    counter INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    anchor INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    at_ms INTEGER,
    written_ms INTEGER NOT NULL,
    -- SHA-256 of the content, and of the content before it as its sender claims
    content BLOB NOT NULL,
    prev BLOB,
    -- 1 gap before, 2 repeat, 4 broken chain, 8 fork
    flags INTEGER NOT NULL,
    submit_id BLOB,
    sealed BLOB NOT NULL,
    PRIMARY KEY (room, message_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX message_device ON message (device);

CREATE INDEX message_order ON message (room, anchor, counter, seq);

CREATE INDEX message_sender ON message (room, device, counter);

CREATE TABLE pin (
    tag BLOB PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE place (
    room INTEGER NOT NULL REFERENCES room (id),
    seq INTEGER NOT NULL,
    chain BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (room, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX place_body ON place (room, body);

CREATE TABLE room (
    id INTEGER PRIMARY KEY,
    tag BLOB NOT NULL UNIQUE,
    -- 0 creating, 1 joining, 2 active, 3 held, 4 left
    status INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    -- how far this device has taken in the room's log, and the chain there; NULL before the first entry
    incarnation BLOB,
    seq INTEGER NOT NULL,
    chain BLOB,
    -- this device's last message number in the room and the hash of that message's content
    counter INTEGER NOT NULL,
    prev BLOB
) STRICT;

CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- 0 not at all, 1 under a passphrase, 2 under a key file
    seal INTEGER NOT NULL,
    salt BLOB NOT NULL,
    -- a constant, sealed: shows whether a key is the right one
    probe BLOB NOT NULL
) STRICT;

CREATE TABLE submission (
    submit_id BLOB PRIMARY KEY,
    room INTEGER NOT NULL REFERENCES room (id),
    position INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    -- 1 while it is on its way, 0 when it has ended
    live INTEGER NOT NULL,
    -- its state as `client::store::outbox` writes it
    sealed BLOB NOT NULL,
    -- what leaves, byte by byte the same at each attempt, and its hash
    ciphertext BLOB,
    digest BLOB
) STRICT, WITHOUT ROWID;

CREATE INDEX submission_digest ON submission (room, digest) WHERE digest IS NOT NULL;

CREATE INDEX submission_live ON submission (position) WHERE live = 1;
