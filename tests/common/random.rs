//! Random choices that a seed repeats (SplitMix64).

pub struct Random(u64);

impl Random {
    /// From the variable `SEED` where it is set, else from the clock; printed, so that a failure can be repeated.
    pub fn from_seed(what: &str) -> Self {
        let given = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
        let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = given.unwrap_or_else(clock);
        println!("{what}: SEED={seed}");
        Self(seed)
    }

    /// The same choices every time.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another source, for a thread.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which is at least 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Words of random letters: no two texts are alike.
    pub fn text(&mut self, words: usize) -> String {
        let mut word = |_| (0..5).map(|_| char::from(b'a' + self.below(26) as u8)).collect::<String>();
        (0..words).map(&mut word).collect::<Vec<_>>().join(" ")
    }
}
