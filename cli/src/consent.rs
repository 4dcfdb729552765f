//! Asks before something happens to many devices, or cannot be undone.

use inquire::InquireError;

use crate::error::{Exit, Failure};

/// Up to this many devices, an assignment asks nothing: a hand's count is typed on purpose.
pub const ASK_ABOVE: i64 = 10;

/// Above this many devices, `y` is too easily typed: the person types the number.
pub const TYPE_ABOVE: i64 = 1_000;

/// What is needed before something happens to a number of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// A yes.
    Yes,
    /// The number of devices, typed.
    Number(i64),
}

/// Decides what is needed.
pub fn need(devices: i64, yes: bool) -> Need {
    if yes || devices <= ASK_ABOVE {
        Need::Nothing
    } else if devices <= TYPE_ABOVE {
        Need::Yes
    } else {
        Need::Number(devices)
    }
}

/// Decides what is needed before devices are lost for good: always something, and sooner the number.
pub fn need_to_lose(devices: usize, yes: bool) -> Need {
    let devices = i64::try_from(devices).unwrap_or(i64::MAX);
    if yes {
        Need::Nothing
    } else if devices <= ASK_ABOVE {
        Need::Yes
    } else {
        Need::Number(devices)
    }
}

/// Asks the person, where there is one.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    may_ask: bool,
}

impl Asker {
    /// Makes an asker. Without a person at the terminal it refuses what would need an answer.
    pub fn new(may_ask: bool) -> Self {
        Self { may_ask }
    }

    /// Tells whether there is a person to ask.
    pub fn may_ask(self) -> bool {
        self.may_ask
    }

    /// Gets consent for something that cannot be undone.
    pub fn confirm(self, what: &str, yes: bool) -> Result<(), Failure> {
        if yes { Ok(()) } else { self.obtain(what, Need::Yes) }
    }

    /// Gets what is needed, or fails.
    pub fn obtain(self, what: &str, need: Need) -> Result<(), Failure> {
        if need == Need::Nothing {
            return Ok(());
        }
        if !self.may_ask {
            return Err(Failure::usage(format!("not asked: {what}")).hint("say --yes to do it without being asked"));
        }
        let given = match need {
            Need::Nothing => true,
            Need::Yes => answered(inquire::Confirm::new(what).with_default(false).prompt())?,
            Need::Number(number) => {
                let question = format!("{what} Type the number of devices to go on:");
                let text = answered(inquire::Text::new(&question).prompt())?;
                is_number(&text, number)
            }
        };
        if given { Ok(()) } else { Err(Failure::failed("not confirmed; nothing was changed")) }
    }
}

/// Tells whether the person typed the number, with or without separators.
fn is_number(text: &str, number: i64) -> bool {
    text.trim().replace([',', '_', ' '], "") == number.to_string()
}

fn answered<T>(answer: Result<T, InquireError>) -> Result<T, Failure> {
    answer.map_err(|error| match error {
        InquireError::OperationCanceled | InquireError::OperationInterrupted => {
            Failure::new(Exit::Interrupted, "interrupted; nothing was changed")
        }
        InquireError::NotTTY
        | InquireError::InvalidConfiguration(_)
        | InquireError::IO(_)
        | InquireError::Custom(_) => Failure::because("cannot ask", &error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_devices_the_more_is_needed() {
        let table = [
            (0, Need::Nothing),
            (10, Need::Nothing),
            (11, Need::Yes),
            (1_000, Need::Yes),
            (1_001, Need::Number(1_001)),
        ];
        for (devices, expected) in table {
            assert_eq!(need(devices, false), expected, "{devices}");
            assert_eq!(need(devices, true), Need::Nothing, "{devices} with --yes");
        }
    }

    #[test]
    fn devices_are_never_lost_without_a_question() {
        let table = [(1, Need::Yes), (10, Need::Yes), (11, Need::Number(11))];
        for (devices, expected) in table {
            assert_eq!(need_to_lose(devices, false), expected, "{devices}");
            assert_eq!(need_to_lose(devices, true), Need::Nothing, "{devices} with --yes");
        }
    }

    #[test]
    fn without_a_person_what_needs_an_answer_is_a_usage_error() {
        let nobody = Asker::new(false);
        assert!(nobody.obtain("Go?", Need::Nothing).is_ok());
        assert!(nobody.confirm("Go?", true).is_ok());
        assert_eq!(nobody.confirm("Go?", false).unwrap_err().exit(), Exit::Usage);
        assert_eq!(nobody.obtain("Go?", Need::Number(5_000)).unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn only_the_number_itself_counts_as_typed() {
        assert!(is_number(" 12,345 ", 12_345));
        assert!(!is_number("y", 12_345));
        assert!(!is_number("1234", 12_345));
    }
}
