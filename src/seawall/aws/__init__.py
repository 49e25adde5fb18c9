"""A light asynchronous layer over AWS: credentials, signatures, DynamoDB. Nothing of boto."""
