//! In the place of decoders in a build without plugins: a configuration that names one is refused.
//!
//! The rest of the pipeline reads the same in both builds.

use super::super::ingest::Shared;
use super::super::lanes::WriterSeat;
use super::super::plugins::Formats;
use super::super::sources::SourceNames;
use super::{DecodersError, Running};
use crate::config::{Config, Protocol};
use crate::telemetry::metrics::Metrics;

/// None.
pub struct Decoders;

impl Decoders {
    /// Refuses a configuration with such receivers.
    pub fn open(config: &Config) -> Result<Decoders, DecodersError> {
        let mut receivers = config.receivers.iter();
        match receivers.find(|receiver| matches!(receiver.protocol, Protocol::Plugin(_))) {
            Some(receiver) => {
                let why = "this build of millrace has no plugins".to_owned();
                Err(DecodersError::Plugin { receiver: receiver.name.clone(), why })
            }
            None => Ok(Decoders),
        }
    }

    /// Starts nothing.
    pub fn start(
        self,
        _writers: &mut [WriterSeat],
        _shared: (&Shared<'_>, &SourceNames),
        _shown: (&Metrics, &Formats),
    ) -> Result<Running, DecodersError> {
        Ok(Running::default())
    }
}
