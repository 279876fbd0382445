//! `contact verify|accept`.

use super::rooms::parse_user;
use crate::args::{ContactVerb, Global};
use crate::error::{Exit, Failure};
use crate::output::Output;
use crate::show::Contact;
use crate::{place, prompt};

pub(super) async fn run(
    global: &Global,
    output: &Output,
    verb: ContactVerb,
) -> Result<Exit, Failure> {
    let client = place::open(global).await?;
    let user = match verb {
        ContactVerb::Verify { user } => parse_user(&user)?,
        ContactVerb::Accept { user } => {
            let user = parse_user(&user)?;
            let question = format!("Accept the other identity of {}?", user.handle());
            if !global.yes && !prompt::confirm(&question)? {
                return Ok(Exit::Failed);
            }
            client.accept_identity(&user).await?;
            output.talk("It counts from now on; rooms held because of it go on with the next command that connects.");
            user
        }
    };
    let number = client.safety_number(&user).await?;
    output.one(&Contact { user, number })?;
    Ok(Exit::Done)
}
