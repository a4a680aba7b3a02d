//! Judges histories recorded by simulated clients: was anything acknowledged lost, doubled, or out of order?
