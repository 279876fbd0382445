//! Random schedules: deliveries, crashes, lost answers and changes to the room in any order. A failure names its seed.

use protocol::{Entropy, RoomId};

use super::harness::{Device, Hub, Seeded, settle};
use crate::store::Action;

const SEEDS: u64 = 12;
const STEPS: usize = 160;

struct Run {
    hub: Hub,
    chance: Seeded,
    devices: Vec<Device>,
    room: RoomId,
    written: Vec<Vec<String>>,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let mut hub = Hub::new(seed);
        let mut devices = vec![];
        for name in ["ana", "bo", "cy", "di"] {
            devices.push(Device::new(&mut hub, name).await);
        }
        let room = devices[0].create().await;
        // di comes and goes later.
        for i in [1, 2] {
            let user = devices[i].id.user();
            devices[0].want(&room, Action::Add(user)).await;
        }
        let mut all: Vec<&mut Device> = devices.iter_mut().collect();
        settle(&mut hub, &mut all).await;
        let chance = Seeded::new(seed ^ 0xfeed);
        Self { hub, chance, devices, room, written: vec![vec![]; 3] }
    }

    fn pick(&self, n: usize) -> usize {
        self.chance.jitter() as usize % n
    }

    async fn step(&mut self) {
        let (who, what) = (self.pick(4), self.pick(100));
        let max = 1 + self.pick(6);
        let device = &mut self.devices[who];
        match what {
            0..20 if who < 3 => {
                let text = format!("{who}.{}", self.written[who].len());
                device.send(&self.room, &text).await;
                self.written[who].push(text);
            }
            20..40 => {
                device.hand_over(&mut self.hub).await;
            }
            // It goes up, and the answer is lost with the connection or with the process.
            40..48 => {
                if let Some(submit) = device.next_out().await {
                    self.hub.submit(&device.id, &submit);
                }
                device.crash(&self.hub).await;
            }
            48..52 => {
                device.next_out().await;
                device.crash(&self.hub).await;
            }
            52..78 => {
                let logs = device.logs(&self.hub);
                let log = &logs[self.chance.jitter() as usize % logs.len()];
                let ack = !self.chance.jitter().is_multiple_of(5);
                device.take_in(&self.hub, log, max, ack).await;
            }
            78..82 => device.crash(&self.hub).await,
            82..92 => {
                device.carry(&mut self.hub).await;
            }
            92..94 if who < 3 => {
                device.want(&self.room, Action::Renew).await;
            }
            94..95 => {
                let di = self.devices[3].id.user();
                self.devices[0].want(&self.room, Action::Add(di)).await;
            }
            95..96 => {
                let di = self.devices[3].id.user();
                self.devices[0].want(&self.room, Action::Remove(di)).await;
            }
            _ => self.hub.pass(500),
        }
    }

    async fn check(mut self, seed: u64) {
        let mut all: Vec<&mut Device> = self.devices.iter_mut().collect();
        settle(&mut self.hub, &mut all).await;
        let want = self.devices[0].texts(&self.room).await;
        for (who, written) in self.written.iter().enumerate() {
            let own: Vec<String> =
                want.iter().filter(|t| t.starts_with(&format!("{who}."))).cloned().collect();
            assert_eq!(own, *written, "seed {seed}: each once, in the order of its sender");
        }
        for device in &mut self.devices[..3] {
            assert_eq!(device.texts(&self.room).await, want, "seed {seed}: {}", device.id);
            let timeline = device.timeline(&self.room).await;
            assert!(
                timeline.iter().all(|m| m.flags.is_empty() && m.seq.is_some()),
                "seed {seed}: {}",
                device.id
            );
            let live = device.core().read().await.unwrap().live_submissions().await.unwrap();
            assert!(live.is_empty(), "seed {seed}: {}", device.id);
        }
        for device in &self.devices {
            assert_eq!(device.alarms(), Vec::<String>::new(), "seed {seed}: {}", device.id);
        }
        // Whoever was there for a while has part of it, in the same order.
        let there = self.devices[3].core().read().await.unwrap().room(&self.room).await.unwrap();
        if there.is_some() {
            let part = self.devices[3].texts(&self.room).await;
            let mut rest = want.iter();
            assert!(part.iter().all(|t| rest.any(|w| w == t)), "seed {seed}: {part:?} of {want:?}");
        }
    }
}

#[tokio::test]
async fn whatever_happens_everybody_ends_with_the_same_timeline() {
    for seed in 100..100 + SEEDS {
        let mut run = Run::new(seed).await;
        for _ in 0..STEPS {
            run.step().await;
        }
        run.check(seed).await;
    }
}
