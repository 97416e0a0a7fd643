//! What memory does not hold: how much is kept, where the rest goes, and what that costs.
