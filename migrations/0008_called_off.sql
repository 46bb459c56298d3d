-- Since when somebody wants a placed call to be over, while it may ring: beside the state, which older
-- replicas read as well.
ALTER TABLE outbound ADD COLUMN called_off_at BIGINT;
