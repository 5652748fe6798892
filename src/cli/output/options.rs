//! The options of every verb: how much is printed, and in which form.

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

/// How much is told, and in which form.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Say nothing but errors
    #[arg(short, long, global = true, env = "IMGMV_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Say more: decisions, requests that were repeated, what was there already
    #[arg(short, long, global = true, env = "IMGMV_VERBOSE", value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Write the answer to standard output as one JSON document with a "version"
    #[arg(long, global = true, env = "IMGMV_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// How progress is shown on standard error
    #[arg(long, global = true, value_name = "HOW", default_value = "auto", env = "IMGMV_PROGRESS")]
    pub progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, plain lines elsewhere
    Auto,
    /// Bars with total, rate and remaining time
    Bar,
    /// A line every few seconds
    Plain,
    /// One JSON object a line, for machines
    Json,
    /// Nothing
    None,
}
