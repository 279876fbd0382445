-- The database of one node. Names of tables and columns are the same for PostgreSQL. Times are milliseconds since the
-- Unix epoch, UTC; yes and no are 1 and 0; users, devices and rooms are their URIs, nodes their domains.

-- The node itself: one row.
CREATE TABLE node (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    domain      TEXT NOT NULL,
    incarnation BLOB NOT NULL CHECK (length(incarnation) = 16), -- this life of the database: fresh at creation and at every restore
    ticks       INTEGER NOT NULL DEFAULT 0, -- grows at every start and every ten seconds of running: a copy that has fewer than the file `life` is a backup
    aged_ms     INTEGER NOT NULL, -- how far time has gone for what ends: never ahead of what the node has lived through
    created_ms  INTEGER NOT NULL
) STRICT;

-- A log: an append-only sequence of entries with gapless numbers. PROTOCOL §4.
CREATE TABLE log (
    id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind        TEXT NOT NULL CHECK (kind IN ('room', 'replica', 'inbox', 'uplink')),
    name        TEXT NOT NULL,                                  -- the room; of an inbox: the device
    hub         TEXT NOT NULL,                                  -- the node that orders the room; of an inbox: this node
    incarnation BLOB NOT NULL CHECK (length(incarnation) = 16), -- whose life the numbers belong to: the hub's for a replica, else this node's
    head        INTEGER NOT NULL,                               -- seq of the newest entry, 0 before the first
    tail        INTEGER NOT NULL,                               -- seq of the first entry still here, head + 1 when none is
    chain       BLOB NOT NULL CHECK (length(chain) = 32),       -- the chain at head
    tail_chain  BLOB NOT NULL CHECK (length(tail_chain) = 32),  -- the chain before tail
    last_at_ms  INTEGER NOT NULL,                               -- time of the newest entry
    bytes       INTEGER NOT NULL,                               -- bodies of all kept entries together
    created_ms  INTEGER NOT NULL,
    UNIQUE (kind, name)
) STRICT;

-- What was put into a log.
CREATE TABLE entry (
    log_id INTEGER NOT NULL REFERENCES log (id),
    seq    INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,                               -- the hub's time of acceptance
    kind   INTEGER NOT NULL,                               -- PROTOCOL §4.1
    body   BLOB,                                           -- absent where this node got only the digest
    digest BLOB NOT NULL CHECK (length(digest) = 32),      -- PROTOCOL §4.3
    chain  BLOB NOT NULL CHECK (length(chain) = 32),       -- the chain at this entry
    note   BLOB,                                           -- what goes with it to followers: changes of members, the bundle's signature
    origin TEXT,                                           -- who handed it in here: a device, or the domain of a peer; absent in other logs than rooms
    submit_key BLOB,                                       -- as in submission
    submitted BLOB CHECK (length(submitted) = 32),         -- as submission.digest
    PRIMARY KEY (log_id, seq)
) STRICT;
-- A hub remembers a submission with its entry. A SubmitId begins with the time: new ones lie side by side.
CREATE INDEX entry_by_submit_key ON entry (submit_key) WHERE submit_key IS NOT NULL;

-- Entries that this node will never have, inside what it has. PROTOCOL §4.6.
CREATE TABLE gap (
    log_id INTEGER NOT NULL REFERENCES log (id),
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    chain  BLOB NOT NULL CHECK (length(chain) = 32),       -- the chain at last
    reason TEXT NOT NULL CHECK (reason IN ('expired', 'lost')),
    at_ms  INTEGER NOT NULL,                               -- when it was noticed
    PRIMARY KEY (log_id, first)
) STRICT, WITHOUT ROWID;

-- Who must get the entries of a log, from where, how far they got, and until where. A device that was removed and added again
-- has two rows.
CREATE TABLE reader (
    log_id    INTEGER NOT NULL REFERENCES log (id),
    reader    TEXT NOT NULL,    -- a device, or the domain of a peer
    from_seq  INTEGER NOT NULL, -- the first entry for it
    cursor    INTEGER NOT NULL, -- the last entry it has acknowledged
    until_seq INTEGER,          -- the last entry for it, once it is known
    PRIMARY KEY (log_id, reader, from_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX reader_by_reader ON reader (reader, log_id);

-- How the delivery of a log to a peer goes. PROTOCOL §9.6.
CREATE TABLE lane (
    log_id        INTEGER NOT NULL REFERENCES log (id),
    reader         TEXT NOT NULL,    -- the peer
    attempts       INTEGER NOT NULL, -- failures in a row; written before dialling
    next_at_ms     INTEGER NOT NULL, -- not before this
    parked_seq     INTEGER,          -- the entry that the peer does not take, when the lane waits for a person
    parked_refusal TEXT,             -- what it said, as JSON
    last_error     TEXT,
    last_ok_ms     INTEGER,
    PRIMARY KEY (log_id, reader)
) STRICT, WITHOUT ROWID;
CREATE INDEX lane_by_reader ON lane (reader, next_at_ms);

-- A room: what a node must know of its MLS group without a key that opens it.
CREATE TABLE room (
    log_id      INTEGER NOT NULL PRIMARY KEY REFERENCES log (id),
    uri         TEXT NOT NULL UNIQUE,
    hub         TEXT NOT NULL,
    suite       INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    created_ms  INTEGER NOT NULL,
    group_state BLOB             -- the public MLS state, on the hub
) STRICT;
CREATE INDEX room_by_hub ON room (hub) WHERE group_state IS NULL;

-- Devices in a room's group at its present epoch.
CREATE TABLE member (
    log_id    INTEGER NOT NULL REFERENCES log (id),
    device    TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    domain    TEXT NOT NULL,
    since_seq INTEGER NOT NULL,  -- the commit that added it
    PRIMARY KEY (log_id, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX member_by_device ON member (device, log_id);
CREATE INDEX member_by_user ON member (user_id, log_id);
CREATE INDEX member_by_domain ON member (log_id, domain);

-- Proposals of the present epoch that no commit has taken yet.
CREATE TABLE pending_proposal (
    log_id    INTEGER NOT NULL REFERENCES log (id),
    seq       INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    reference BLOB NOT NULL,     -- the MLS ProposalRef
    PRIMARY KEY (log_id, reference)
) STRICT;

-- People of this node.
CREATE TABLE account (
    user_id       TEXT NOT NULL PRIMARY KEY,
    identity_key  BLOB NOT NULL CHECK (length(identity_key) = 32),
    password_hash TEXT NOT NULL,  -- argon2id, PHC string
    created_ms    INTEGER NOT NULL,
    suspended_ms  INTEGER
) STRICT, WITHOUT ROWID;

-- Their devices.
CREATE TABLE device (
    device      TEXT NOT NULL PRIMARY KEY,
    user_id     TEXT NOT NULL REFERENCES account (user_id),
    name        TEXT NOT NULL,    -- what the person calls it
    certificate BLOB NOT NULL,    -- PROTOCOL §7.1
    created_ms  INTEGER NOT NULL,
    seen_ms     INTEGER,
    revoked_ms  INTEGER
) STRICT;
CREATE INDEX device_by_user ON device (user_id, created_ms);

-- Bearer tokens, as SHA-256.
CREATE TABLE token (
    hash       BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    device     TEXT NOT NULL REFERENCES device (device),
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX token_by_device ON token (device);

-- Invitations to register, as SHA-256. Each is good once.
CREATE TABLE invite (
    hash       BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_by    TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX invite_by_expiry ON invite (expires_ms);

-- Other nodes we talk to, and only those. PROTOCOL §9.3.
CREATE TABLE peer (
    domain          TEXT NOT NULL PRIMARY KEY,
    host            TEXT NOT NULL,
    port            INTEGER NOT NULL,
    node_key        BLOB NOT NULL CHECK (length(node_key) = 32), -- the pinned Ed25519 key
    reach           TEXT NOT NULL CHECK (reach IN ('public', 'anywhere')), -- where its host may lead: anywhere only if an operator of ours named it
    state           TEXT NOT NULL CHECK (state IN ('active', 'blocked')),
    added_ms        INTEGER NOT NULL,
    last_contact_ms INTEGER,
    last_error      TEXT
) STRICT, WITHOUT ROWID;

-- Invitations to become a peer, as SHA-256. Each is good once.
CREATE TABLE peer_invite (
    hash       BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_by    TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_invite_by_expiry ON peer_invite (expires_ms);

-- KeyPackages: each is handed out once, the last resort of a suite again and again. PROTOCOL §6.4.
CREATE TABLE keypackage (
    reference    BLOB NOT NULL PRIMARY KEY,  -- the MLS KeyPackageRef
    device       TEXT NOT NULL REFERENCES device (device),
    suite        INTEGER NOT NULL,
    body         BLOB NOT NULL,
    not_after_ms INTEGER NOT NULL,
    last_resort  INTEGER NOT NULL CHECK (last_resort IN (0, 1)),
    claimed_ms   INTEGER
) STRICT;
CREATE INDEX keypackage_by_device ON keypackage (device, suite, last_resort, claimed_ms);
CREATE INDEX keypackage_by_expiry ON keypackage (not_after_ms);

-- What was answered to whom, so that a repetition gets the same answer, where no entry says it: what waits for a foreign hub or was handed
-- over to it, and what had its place in an entry that is gone. PROTOCOL §5.1 and §5.2.
CREATE TABLE submission (
    origin      TEXT NOT NULL,    -- a device, or the domain of a peer
    room        TEXT NOT NULL,
    submit_key  BLOB NOT NULL,    -- a device's SubmitId; for a peer the SHA-256 of the MLS message
    digest      BLOB NOT NULL CHECK (length(digest) = 32),
    state       TEXT NOT NULL CHECK (state IN ('stored', 'accepted')),
    incarnation BLOB,             -- the place in the room's log, once accepted
    seq         INTEGER,
    at_ms       INTEGER,
    chain       BLOB,
    bytes       INTEGER NOT NULL DEFAULT 0, -- of one that waits for a hub
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (submit_key, origin, room) -- a SubmitId begins with the time: new ones lie side by side
) STRICT, WITHOUT ROWID;
CREATE INDEX submission_by_age ON submission (created_ms);
CREATE INDEX submission_waiting ON submission (origin) WHERE state = 'stored';
-- Handed over to a foreign hub: what it may have lost when it was restored is found without a look at all others.
CREATE INDEX submission_handed_over ON submission (room, created_ms) WHERE seq = 0;

-- Sealed offers from a device to a new one of the same user. PROTOCOL §6.9.
CREATE TABLE link_offer (
    id         BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    device     TEXT NOT NULL REFERENCES device (device),
    sealed     BLOB NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX link_offer_by_device ON link_offer (device);
CREATE INDEX link_offer_by_expiry ON link_offer (expires_ms);
