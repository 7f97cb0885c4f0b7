"""Bundles and signatures that an attacker could hand over; every one must be refused."""
