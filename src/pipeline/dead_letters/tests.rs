//! Letters through the thread that keeps them, the desk, and back.
