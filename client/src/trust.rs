//! Who is who: identity keys are pinned at first sight, and a device counts only under the pinned key of its person.

use crypto::Certificate;
use protocol::UserId;

use crate::core::Work;
use crate::event::{Alarm, AlarmKind};
use crate::store::PinRow;
use crate::{Error, Result};

/// Compares a device's certificate with what is pinned for its person; pins the key of somebody new.
///
/// # Errors
/// The disk's. A key that differs is the inner error.
pub(crate) async fn check(
    work: &mut Work<'_>,
    certificate: &Certificate,
) -> Result<std::result::Result<(), Alarm>> {
    let user = certificate.user();
    let key = *certificate.identity().as_bytes();
    match work.tx.pin(&user).await? {
        None => {
            let since = work.now();
            work.tx.put_pin(&PinRow { user, key, since, other: None }).await?;
            Ok(Ok(()))
        }
        Some(pin) if pin.key == key => Ok(Ok(())),
        Some(pin) => {
            if pin.other.as_ref().is_none_or(|other| other.as_slice() != key) {
                work.tx.put_pin(&PinRow { other: Some(key.to_vec().into()), ..pin }).await?;
            }
            Ok(Err(Alarm {
                kind: AlarmKind::IdentityChanged,
                room: None,
                device: Some(certificate.device().clone()),
                sentence: format!(
                    "{} shows another identity key than before. Either this person set everything up anew, or \
                     somebody pretends to be them. Compare safety numbers, then accept the new identity or not.",
                    user.handle()
                ),
            }))
        }
    }
}

/// Accepts the identity key that a person showed last.
///
/// # Errors
/// [`Error::Invalid`] when the person showed no other key.
pub(crate) async fn accept(work: &mut Work<'_>, user: &UserId) -> Result<()> {
    let pin = work.tx.pin(user).await?;
    let Some((mut pin, other)) = pin.and_then(|p| p.other.clone().map(|o| (p, o))) else {
        return Err(Error::Invalid("this person has shown no other identity"));
    };
    pin.key = other.as_slice().try_into().map_err(|_| Error::Corrupt { table: "pin" })?;
    pin.other = None;
    pin.since = work.now();
    work.tx.put_pin(&pin).await
}
