"""The driver's side: the collection task, and how a deliberation ends."""
