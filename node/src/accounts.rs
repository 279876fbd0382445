//! People: registering by invitation and signing devices in. PROTOCOL §6.2.

use std::sync::Arc;

use crypto::{Certificate, password, token};
use delivery::quota::{self, Amount};
use protocol::api::{Login, Register, SignedIn};
use protocol::log::{Chain, Digest};
use protocol::{Code, Refusal, Seq, Timestamp, UserId, limit};

use crate::app::App;
use crate::error::Outcome;
use crate::store::accounts::{self, Account};
use crate::store::devices::{self, Device};
use crate::store::logs::{self, LogName, Start};
use crate::store::{Tx, readers};

/// Registers a person with their first device. Repeating it with the same certificate and password gives a new token.
///
/// # Errors
/// `BadInvite`, `NameTaken`, `Invalid`, `BadCertificate`; `Unavailable` when too many passwords are being hashed.
pub(crate) async fn register(app: &Arc<App>, ask: Register) -> Outcome<SignedIn> {
    let certificate = certified(app, &ask.user, &ask.certificate)?;
    if certificate.identity().as_bytes() != &ask.identity_key {
        return Err(because(Code::BadCertificate, "It is signed by another identity key.").into());
    }
    check_name(&ask.user)?;
    check_device_name(&ask.device_name)?;
    check_password(&ask.password)?;
    app.room_for_more()?;
    let invite = invite_hash(&ask.invite)?;
    let (entropy, plain) = (app.entropy.clone(), ask.password.clone());
    let password_hash = app.hashing(move || password::hash(&plain, entropy.as_ref())).await?;
    let account = Account {
        user: ask.user,
        identity_key: ask.identity_key,
        password_hash,
        created: app.now(),
        suspended: None,
    };
    let (shared, device, name) = (app.clone(), certificate.clone(), ask.device_name);
    let registered = app
        .store
        .write(move |tx| Box::pin(create(tx, shared, (account, invite), device, name)))
        .await?;
    match registered {
        Registered::New(signed_in) => Ok(signed_in),
        Registered::Before(account) => {
            let (known, stored) = (ask.password, account.password_hash);
            if app.hashing(move || password::verify(&known, Some(&stored))).await? {
                sign_in(app, certificate, String::new()).await
            } else {
                Err(Code::NameTaken.into())
            }
        }
    }
}

enum Registered {
    New(SignedIn),
    /// This very device registered before: the answer was lost.
    Before(Account),
}

/// The account, its first device and the use of the invitation, in one transaction.
async fn create(
    tx: &mut Tx,
    app: Arc<App>,
    (account, invite): (Account, [u8; 32]),
    certificate: Certificate,
    name: String,
) -> Outcome<Registered> {
    let now = account.created;
    if !accounts::take_invite(tx, &invite, &account.user, app.possibly()).await? {
        return Err(Code::BadInvite.into());
    }
    if accounts::create(tx, &account).await? {
        let signed_in = add_device(tx, &app, &certificate, name, now).await?;
        return Ok(Registered::New(signed_in));
    }
    let same = crate::devices::in_good_standing(tx, &certificate).await?;
    match accounts::find(tx, &account.user).await? {
        Some(found) if same => Ok(Registered::Before(found)),
        _ => Err(Code::NameTaken.into()),
    }
}

/// Signs a further device in, or the same one again.
///
/// # Errors
/// `WrongPassword`, whatever of name and password is wrong; `BadCertificate`, `Invalid`, `TooLarge` with too many devices.
pub(crate) async fn login(app: &Arc<App>, ask: Login) -> Outcome<SignedIn> {
    let certificate = certified(app, &ask.user, &ask.certificate)?;
    check_device_name(&ask.device_name)?;
    if ask.password.len() > limit::PASSWORD_BYTES {
        return Err(Code::WrongPassword.into());
    }
    let account = accounts::find(&mut app.store.snapshot().await?, &ask.user).await?;
    let account = account.filter(|a| a.suspended.is_none());
    let (password, stored) = (ask.password, account.as_ref().map(|a| a.password_hash.clone()));
    let right = app.hashing(move || password::verify(&password, stored.as_deref())).await?;
    let account = account.filter(|_| right).ok_or(Code::WrongPassword)?;
    if certificate.identity().as_bytes() != &account.identity_key {
        return Err(because(Code::BadCertificate, "It is signed by another identity key.").into());
    }
    sign_in(app, certificate, ask.device_name).await
}

/// Adds the device of `certificate` if it is new, and gives it a token.
async fn sign_in(app: &Arc<App>, certificate: Certificate, name: String) -> Outcome<SignedIn> {
    let shared = app.clone();
    app.store
        .write(move |tx| {
            Box::pin(async move {
                let now = shared.now();
                // Two devices of one person that sign in at once must not pass the bound together.
                accounts::lock(tx, &certificate.user()).await?.ok_or(Code::WrongPassword)?;
                match devices::find(tx, certificate.device()).await? {
                    None => add_device(tx, &shared, &certificate, name, now).await,
                    Some(d) if d.revoked.is_some() || d.certificate != certificate.as_bytes() => {
                        Err(because(
                            Code::BadCertificate,
                            "The device was revoked or has another certificate.",
                        )
                        .into())
                    }
                    Some(_) => {
                        devices::delete_tokens(tx, certificate.device()).await?;
                        add_token(tx, &shared, &certificate, now).await
                    }
                }
            })
        })
        .await
}

/// A new device: its row, its inbox, its token.
async fn add_device(
    tx: &mut Tx,
    app: &App,
    certificate: &Certificate,
    name: String,
    now: Timestamp,
) -> Outcome<SignedIn> {
    let device = certificate.device();
    let held = Amount { count: devices::count(tx, &certificate.user()).await?, bytes: 0 };
    quota::DEVICES.admit(held, Amount::one(0))?;
    let row = Device {
        device: device.clone(),
        name,
        certificate: certificate.as_bytes().to_vec(),
        created: now,
        seen: None,
        revoked: None,
    };
    if !devices::create(tx, &row).await? {
        return Err(because(Code::BadCertificate, "A device of this name exists.").into());
    }
    let start = Start {
        incarnation: app.incarnation,
        seq: Seq::new(0),
        // Nobody follows the chain of an inbox; it starts anywhere.
        chain: Chain::from_bytes([0; 32]),
        at: Timestamp::from_ms(0),
    };
    let inbox = logs::create(tx, &LogName::Inbox(device.clone()), &app.domain, &start, now).await?;
    if let Some(inbox) = inbox {
        readers::add(tx, inbox, &device.clone().into(), Seq::new(1)).await?;
    }
    add_token(tx, app, certificate, now).await
}

async fn add_token(
    tx: &mut Tx,
    app: &App,
    certificate: &Certificate,
    now: Timestamp,
) -> Outcome<SignedIn> {
    let plain = token::make(app.entropy.as_ref());
    devices::add_token(tx, &token::hash(&plain), certificate.device(), now).await?;
    Ok(SignedIn { device: certificate.device().clone(), token: plain })
}

/// The certificate, for a device of `user`, who is one of ours.
fn certified(app: &App, user: &UserId, bytes: &[u8]) -> Result<Certificate, Refusal> {
    if *user.domain() != app.domain {
        return Err(because(Code::Invalid, "The name is not one of this node's domain."));
    }
    let certificate = Certificate::verify(bytes)?;
    if certificate.user() != *user {
        return Err(because(Code::BadCertificate, "It is for another person's device."));
    }
    Ok(certificate)
}

/// What an invitation is stored under.
fn invite_hash(secret: &str) -> Result<[u8; 32], Refusal> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
    let secret: Option<[u8; 32]> = B64.decode(secret).ok().and_then(|b| b.try_into().ok());
    Ok(*Digest::of_bytes(&secret.ok_or(Code::BadInvite)?).as_bytes())
}

/// Names are read by people: lower case only, so that two do not look alike.
fn check_name(user: &UserId) -> Result<(), Refusal> {
    let name = user.local();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    if name.len() <= NAME_BYTES && name.bytes().all(plain) {
        return Ok(());
    }
    Err(because(
        Code::Invalid,
        "A name has 1 to 64 characters of a-z, 0-9, dots, hyphens and underscores.",
    ))
}

fn check_device_name(name: &str) -> Result<(), Refusal> {
    if name.len() <= limit::DEVICE_NAME_BYTES && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(because(Code::Invalid, "A device name has at most 64 bytes and no control characters."))
}

fn check_password(password: &str) -> Result<(), Refusal> {
    if (limit::PASSWORD_MIN_BYTES..=limit::PASSWORD_BYTES).contains(&password.len()) {
        return Ok(());
    }
    Err(because(Code::Invalid, "A password has 8 to 1,024 bytes."))
}

fn because(code: Code, detail: &str) -> Refusal {
    Refusal::because(code, detail)
}

const NAME_BYTES: usize = 64;
