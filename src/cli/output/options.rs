//! The output options of every verb.

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

/// The amount and the form of the output.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Print only errors
    #[arg(short, long, global = true, env = "IMGMV_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Print more: decisions, retried requests, blobs that existed already
    #[arg(short, long, global = true, env = "IMGMV_VERBOSE", value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Write the answer to standard output as one JSON document, with a "version" field
    #[arg(long, global = true, env = "IMGMV_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// Form of the progress on standard error
    #[arg(long, global = true, value_name = "FORM", default_value = "auto", env = "IMGMV_PROGRESS")]
    pub progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, else plain lines
    Auto,
    /// Bars with total, rate and remaining time
    Bar,
    /// One line every few seconds
    Plain,
    /// One JSON object per line, for scripts
    Json,
    /// No progress
    None,
}
