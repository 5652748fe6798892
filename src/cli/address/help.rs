//! The forms of SRC and DST, for the help; made from the table of transports.

use crate::transport::table::{SHORT_FORMS, TABLE};
use std::fmt;

/// The forms of SRC and DST: shown below the help of every verb that has one of them.
pub const PLACES: Forms = Forms;
/// The forms of SRC that `imgmv serve` takes.
pub const SERVE_FORMS: ServeForms = ServeForms;

pub struct Forms;
pub struct ServeForms;

impl fmt::Display for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Forms of SRC and DST:")?;
        let rows = TABLE.iter().map(|row| (row.syntax, row.help));
        for (syntax, help) in rows.chain(SHORT_FORMS.iter().map(|form| (form.syntax, form.help))) {
            writeln!(f, "  {syntax}")?;
            help.iter().try_for_each(|line| writeln!(f, "      {line}"))?;
        }
        f.write_str(
            "
Only the text of an address decides; files on the disk do not. HOST: with
nothing behind the colon, or USER@HOST:…, is a host; NAME:TAG is a reference. A
name without a scheme is a registry's: this host's engines are
docker-daemon:app:2 and containerd:app:2.",
        )
    }
}

impl fmt::Display for ServeForms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forms of SRC:")?;
        let rows = TABLE.iter().map(|row| row.serve_forms).chain(SHORT_FORMS.iter().map(|form| form.serve_forms));
        rows.flatten().try_for_each(|(syntax, text)| write!(f, "\n  {syntax:<36} {text}"))
    }
}
