//! Both streams as one log.
