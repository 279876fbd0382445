//! Bugs that can be planted: each is what a hasty author of the shells would write. They exist only here; the simulator must catch every one.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// See the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug { $($(#[$doc])* $name,)* }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

bugs! {
    /// A node answers a submission before it is on disk.
    AcknowledgeBeforeSync;
    /// A node pushes entries to devices before they are on disk.
    PushBeforeSync;
    /// A hub does not look whether a submission came before.
    HubDedupOff;
    /// A hub writes the entry and the memory of its submission in two transactions.
    MemoryApart;
    /// A node's lanes do not run again after a start.
    LanesNotStarted;
    /// A device's outbox is not read at its start.
    OutboxNotRead;
    /// A hub takes messages of any epoch.
    EpochCheckOff;
    /// A hub takes a commit for an epoch that has one.
    EpochSwapOff;
    /// A device writes its cursor before what it took in.
    CursorFirst;
    /// A device acknowledges before its own transaction.
    DeviceAcknowledgesFirst;
    /// A device gives a message a new name at each attempt.
    IdMintedAgain;
    /// A device encrypts anew at each attempt under the same name.
    EncryptedAgain;
    /// A device hands over a ciphertext that it has not written down.
    CiphertextNotSaved;
    /// A device keeps its counter in memory.
    CounterNotSaved;
    /// A restored node goes on in its former life.
    LifeNotRenewed;
    /// A follower appends what it has.
    DuplicateAppended;
    /// An uplink goes on when no answer came.
    UplinkSkips;
    /// A notify lane goes on when no answer came.
    NotifySkips;
    /// A device is not told that the hub refused what its node had stored.
    OutcomeNotTold;
    /// A device goes into the epoch of its own commit as soon as that is built.
    MergedEarly;
    /// A device keeps its own commit when another one won.
    LoserKept;
    /// A hub hands out the Welcome of a commit that it refuses.
    LoserWelcome;
    /// A removed device goes on reading.
    RemovalIgnored;
    /// An added device reads from the beginning.
    JoinFromStart;
    /// A node removes what its fastest reader has.
    TrimmedEarly;
    /// A device takes a commit it cannot follow as read.
    HeldSkipped;
    /// A hub's times are its clock's.
    ClockTimes;
    /// A device sorts its timeline by arrival.
    TimelineByArrival;
    /// A device takes its own echo for a message of somebody else.
    EchoForeign;
    /// A device does not compare what others saw.
    ForkIgnored;
    /// A node writes the entry and the log's head in two transactions.
    HeadApart;
    /// A lost answer counts as a failure for good.
    LostIsFailed;
    /// A node does not tell a device's stream that a log grew.
    WakeLost;
    /// A device takes the items of its inbox after one that has to wait.
    InboxSkips;
    /// A device counts an entry it cannot see the start of as read.
    GapSkipped;
}
