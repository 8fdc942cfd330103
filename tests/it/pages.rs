//! Pages, filters, masks, etags, validate_only: COM-5 to COM-8.
