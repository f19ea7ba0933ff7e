class StoreContract:
    pass
