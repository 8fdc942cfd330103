//! Every rule that the documents mark as built is named by a test.
