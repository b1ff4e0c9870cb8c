"""The version of the suite: in the package, in every manifest and in every bundle."""

VERSION = "0.1.0"
