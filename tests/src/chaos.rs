//! SIGKILL and restart in the middle of traffic.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::Outcome;
use crate::node::Node;
use crate::seed::Seed;

/// How it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    /// At least so many kills, over all nodes together.
    pub kills: u32,
    /// The shortest time between a restart and the next kill.
    pub quiet_min: Duration,
    /// The longest.
    pub quiet_max: Duration,
    /// The longest time a killed node stays down.
    pub down_max: Duration,
}

impl Default for Chaos {
    fn default() -> Self {
        Self {
            kills: 10,
            quiet_min: Duration::from_millis(100),
            quiet_max: Duration::from_millis(1500),
            down_max: Duration::from_millis(300),
        }
    }
}

impl Chaos {
    /// Kills and restarts the nodes, in turn and at random moments, until there were enough kills and `traffic` says it has
    /// ended. Ends with all of them up. Calls `tell` for each kill.
    ///
    /// # Errors
    /// When a node does not come back.
    pub async fn rage(
        self,
        nodes: &mut [Node],
        mut seed: Seed,
        traffic: watch::Receiver<bool>,
        mut tell: impl FnMut(&Node),
    ) -> Outcome<u32> {
        let mut kills = 0;
        while kills < self.kills || !*traffic.borrow() {
            for node in &mut *nodes {
                sleep(draw(&mut seed, self.quiet_min, self.quiet_max)).await;
                node.kill_nine().await?;
                kills += 1;
                sleep(draw(&mut seed, Duration::ZERO, self.down_max)).await;
                node.resume().await?;
                tell(node);
            }
        }
        Ok(kills)
    }
}

fn draw(seed: &mut Seed, low: Duration, high: Duration) -> Duration {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(seed.between(ms(low), ms(high)))
}
