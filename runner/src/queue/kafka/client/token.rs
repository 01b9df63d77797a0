//! The token for OAUTHBEARER: a file, which somebody else keeps fresh.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::admin::AdminClient;
use rdkafka::client::OAuthToken;
use rdkafka::types::RDKafkaErrorCode;

use super::Context;
use crate::queue::QueueError;

/// A token is read again before this is over, since whoever writes the file replaces it before its end.
const LIFETIME: Duration = Duration::from_secs(60);

/// The token in a file, as clients ask for it.
pub(super) fn read(file: Option<&Path>) -> Result<OAuthToken, Box<dyn Error>> {
    let file = file.ok_or("`queue.kafka.oauth_token_file` is not set")?;
    let token =
        std::fs::read_to_string(file).map_err(|e| format!("cannot read the token in `{}`: {e}", file.display()))?;
    let ends = SystemTime::now().duration_since(UNIX_EPOCH)? + LIFETIME;
    Ok(OAuthToken {
        token: token.trim().to_owned(),
        principal_name: "sandhog".to_owned(),
        lifetime_ms: i64::try_from(ends.as_millis())?,
    })
}

/// Gives a client of the admin API its token for OAUTHBEARER, which it never asks its context for.
///
/// # Errors
///
/// The token cannot be read, or is none.
pub(crate) fn give(admin: &AdminClient<Context>) -> Result<(), QueueError> {
    let context = admin.inner().context();
    if context.token_file().is_none() {
        return Ok(());
    }
    let refused = |why: &dyn fmt::Display| QueueError::lasting(format!("cannot authenticate by OAUTHBEARER: {why}"));
    let token = read(context.token_file()).map_err(|e| refused(&e))?;
    let no_text = |_| refused(&"the token has a zero byte");
    let value = CString::new(token.token).map_err(no_text)?;
    let principal = CString::new(token.principal_name).map_err(no_text)?;
    let mut why = [0 as c_char; 512];
    #[expect(unsafe_code, reason = "the client library hands tokens only to clients that ask; see SAFETY")]
    // SAFETY: the client lives as long as `admin`; the strings end with a zero and are copied; no extensions, of which there
    // are 0; and `why` is as long as is said, and ends with a zero when anything is written to it.
    let code = unsafe {
        rdkafka::bindings::rd_kafka_oauthbearer_set_token(
            admin.inner().native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            why.as_mut_ptr(),
            why.len(),
        )
    };
    if RDKafkaErrorCode::from(code) == RDKafkaErrorCode::NoError {
        return Ok(());
    }
    let text: Vec<u8> = why.iter().map(|byte| byte.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    Err(refused(&String::from_utf8_lossy(&text)))
}
