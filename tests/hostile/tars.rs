//! Tars as a stranger makes them: any header, any order, any end.

/// A tar that is being made.
#[derive(Default, Clone)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn file(self, name: &str, bytes: &[u8]) -> Tar {
        self.header(name.as_bytes(), b'0', b"", bytes.len() as u64).data(bytes)
    }

    /// An entry without data.
    pub fn entry(self, name: &str, flag: u8, link: &str) -> Tar {
        self.header(name.as_bytes(), flag, link.as_bytes(), 0)
    }

    /// PAX records for the next entry (`x`) or all that follow (`g`).
    pub fn records(self, flag: u8, records: &[(&str, &[u8])]) -> Tar {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = 3 + key.len() + value.len();
            let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap();
            bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.header(b"records", flag, b"", bytes.len() as u64).data(&bytes)
    }

    /// GNU: the next entry's name (`L`) or link target (`K`).
    pub fn long(self, flag: u8, text: &[u8]) -> Tar {
        self.header(b"././@LongLink", flag, b"", text.len() as u64).data(text)
    }

    pub fn header(mut self, name: &[u8], flag: u8, link: &[u8], size: u64) -> Tar {
        let mut block = [0; 512];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        block[100..108].copy_from_slice(b"0000644\0");
        match size < 1 << 33 {
            true => block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes()),
            false => {
                block[124] = 0x80;
                block[128..136].copy_from_slice(&size.to_be_bytes());
            }
        }
        block[156] = flag;
        block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    /// Data with its padding.
    pub fn data(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Without an end mark.
    pub fn open(self) -> Vec<u8> {
        self.0
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
