//! The two organisations, their people, and the room that spans them.

use std::path::Path;

use client::Seal;
use protocol::RoomId;
use tests::Outcome;
use tests::device::Device;
use tests::trouble::During as _;
use tests::world::{World, setup};

/// Ana with two devices and Alf at a.localhost, Bea and Bob at b.localhost.
pub(crate) struct Cast {
    /// The nodes.
    pub(crate) world: World,
    /// `(short name, device)`; Ana's two devices first.
    pub(crate) devices: Vec<(&'static str, Device)>,
}

/// `(what we call the device, person, node)`; the second of Ana's is linked to the first.
const CAST: [(&str, &str, usize); 5] = [
    ("ana", "ana", 0),
    ("ana's laptop", "ana", 0),
    ("alf", "alf", 0),
    ("bea", "bea", 1),
    ("bob", "bob", 1),
];

impl Cast {
    /// Starts the nodes and registers everybody; or takes what a former run left in the folder.
    pub(crate) async fn assemble(folder: &Path) -> Outcome<Self> {
        let returning = folder.join("cast").exists();
        let setups = vec![setup("a.localhost")?, setup("b.localhost")?];
        let mut world = World::start_in(folder, setups, !returning).await?;
        let mut devices: Vec<(&'static str, Device)> = Vec::new();
        for (i, (label, person, node)) in CAST.into_iter().enumerate() {
            let place = folder.join("devices").join(format!("{person}-{}", i + 1));
            let device = if returning {
                Device::reopen(&place, Seal::KeyFile).await
            } else {
                match devices.last() {
                    Some((name, first)) if *name == person => {
                        first.link(&place, Seal::KeyFile).await
                    }
                    _ => {
                        let line = world.invite(node).await?;
                        Device::register(&place, Seal::KeyFile, &line, person).await
                    }
                }
            };
            devices.push((label, device.during(label)?));
        }
        std::fs::write(folder.join("cast"), "everybody is here\n")?;
        Ok(Self { world, devices })
    }

    /// A device by what we call it.
    pub(crate) fn device(&self, label: &str) -> Outcome<&Device> {
        let found = self.devices.iter().find(|(name, _)| *name == label);
        found.map(|(_, device)| device).during(label)
    }

    /// The room that spans both organisations, with everybody in it: made by Ana, or the one of a former run.
    pub(crate) async fn room(&self) -> Outcome<RoomId> {
        let ana = self.device("ana")?;
        let known = ana.client()?.rooms().await?;
        let picnic = known.into_iter().find(|r| r.name.as_deref() == Some("picnic"));
        let room = if let Some(info) = picnic {
            info.room
        } else {
            let room = ana.create_room("picnic").await?;
            for guest in ["alf", "bea", "bob"] {
                ana.invite(&room, self.device(guest)?.user()).await?;
            }
            room
        };
        for (label, device) in &self.devices {
            device.until_active(&room).await.during(label)?;
        }
        Ok(room)
    }
}
