//! `register`, `link`, `whoami`, `devices`.

use client::{Client, Device};
use protocol::DeviceId;

use crate::args::{DevicesVerb, Global, Link, Register, SignIn};
use crate::error::{Exit, Failure};
use crate::output::Output;
use crate::show::Line;
use crate::{place, prompt};

pub(super) async fn register(
    global: &Global,
    output: &Output,
    register: Register,
) -> Result<Exit, Failure> {
    let line = secret_line(&register.line)?;
    let folder = place::folder(global)?;
    let seal = place::new_seal(global, &register.sign_in)?;
    let password = password(&register.sign_in, true)?;
    let device_name = device_name(&register.sign_in);
    let client =
        Client::register(&folder, seal.clone(), &line, &register.name, &password, &device_name)
            .await?;
    place::note_seal(&folder, &seal)?;
    finish(global, &client, output, &folder).await
}

pub(super) async fn link(global: &Global, output: &Output, wanted: Link) -> Result<Exit, Failure> {
    let line = secret_line(&wanted.line)?;
    let folder = place::folder(global)?;
    let seal = place::new_seal(global, &wanted.sign_in)?;
    let password = password(&wanted.sign_in, false)?;
    let device_name = device_name(&wanted.sign_in);
    let client = Client::link(&folder, seal.clone(), &line, &password, &device_name)
        .await
        .map_err(link_failure)?;
    place::note_seal(&folder, &seal)?;
    finish(global, &client, output, &folder).await
}

async fn finish(
    global: &Global,
    client: &Client,
    output: &Output,
    folder: &std::path::Path,
) -> Result<Exit, Failure> {
    // The account exists: what fails from here on is made good by the next command that connects.
    let stocked = tokio::time::timeout(global.patience(), client.stock_up()).await;
    let trouble = match stocked {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(e.sentence()),
        Err(_) => Some("the node did not answer in time".to_owned()),
    };
    if let Some(why) = trouble {
        output.talk(&format!(
            "warning: nobody can invite you yet: {why}. waxwing listen makes it good."
        ));
    }
    output.talk(&format!("This device's data is in {}.", folder.display()));
    output.one(&client.whoami())?;
    Ok(Exit::Done)
}

pub(super) async fn whoami(global: &Global, output: &Output) -> Result<Exit, Failure> {
    output.one(&place::open(global).await?.whoami())?;
    Ok(Exit::Done)
}

pub(super) async fn devices(
    global: &Global,
    output: &Output,
    verb: Option<DevicesVerb>,
) -> Result<Exit, Failure> {
    match verb {
        None | Some(DevicesVerb::List) => {
            let client = place::open(global).await?;
            output.list(&client.devices().await?)?;
        }
        Some(DevicesVerb::Add) => {
            let client = place::open(global).await?;
            let line = client.offer_link().await?;
            output.talk("Within ten minutes, on the new device: waxwing link LINE");
            output.talk("Whoever has this line and your password becomes you:");
            output.one(&Line(line))?;
        }
        Some(DevicesVerb::Revoke { device }) => {
            let question = format!("Shut {device} out for good?");
            if !global.yes && !prompt::confirm(&question)? {
                return Ok(Exit::Failed);
            }
            let revoked = super::online(global, |client| revoke(client, device)).await?;
            output.one(&revoked)?;
            output.talk("It is shut out; its leaves in your rooms follow.");
        }
    }
    Ok(Exit::Done)
}

async fn revoke(client: Client, text: String) -> Result<Device, Failure> {
    let devices = client.devices().await?;
    let exact = devices.iter().any(|d| d.device.as_str() == text);
    let mut found = devices.iter().filter(|d| {
        let (uri, live) = (d.device.as_str(), d.revoked.is_none());
        let called = live && d.name == text;
        uri == text || (!exact && (called || (text.len() >= 4 && uri.ends_with(&text))))
    });
    let device: DeviceId = match (found.next(), found.next()) {
        (Some(one), None) => one.device.clone(),
        (Some(_), Some(_)) => {
            let hint = "write more of its URI";
            return Err(Failure::caller(
                "ambiguous-device",
                "several devices are called that",
                hint,
            ));
        }
        (None, _) => {
            let hint = "waxwing devices";
            return Err(Failure::caller(
                "unknown-device",
                "no device of yours is called that",
                hint,
            ));
        }
    };
    client.revoke_device(&device).await?;
    // As the node lists it now.
    let now = client.devices().await?.into_iter().find(|d| d.device == device);
    now.ok_or_else(|| Failure::internal("the node does not list the revoked device"))
}

/// The node forgets a device line after ten minutes, or when a newer one was made.
fn link_failure(error: client::Error) -> Failure {
    match &error {
        client::Error::Refused(r) if r.code == protocol::Code::NotFound => Failure::caller(
            r.code.as_str(),
            "this device line is not valid any more: it works for ten minutes, and until a newer one is made",
            "waxwing devices add on your other device prints a new line",
        ),
        _ => error.into(),
    }
}

fn secret_line(text: &str) -> Result<String, Failure> {
    if text == "-" { Ok(prompt::stdin()?.trim().to_owned()) } else { Ok(text.to_owned()) }
}

fn device_name(sign_in: &SignIn) -> String {
    sign_in.device_name.clone().unwrap_or_else(place::computer)
}

fn password(sign_in: &SignIn, new: bool) -> Result<String, Failure> {
    if let Some(file) = &sign_in.password_file {
        return prompt::first_line(file);
    }
    let password = prompt::secret("Password")?;
    if new && password != prompt::secret("The same again")? {
        return Err(Failure::caller("password", "the two passwords differ", "try again"));
    }
    Ok(password)
}
