package load

import (
	"context"
	"errors"
)

// Delivery is the result of sending packets at the highest rate.
type Delivery struct {
	// Rate is the received packets, in thousands a second. Loss is the lost ones, in
	// percent of the sent ones.
	Rate, Loss float64
	// CPU is the cost, in microseconds of a processor for each received packet.
	CPU float64
}

// Packets sends UDP packets with size bytes of payload as fast as possible, with a
// system call each.
func Packets(ctx context.Context, from, to End, size, seconds int) (Delivery, error) {
	sink, err := openSink(ctx, to)
	if err != nil {
		return Delivery{}, err
	}
	defer sink.close()
	sent, err := runClient(ctx, from, to, udpSend, size, seconds)
	if err != nil {
		return Delivery{}, err
	}
	received, err := sink.drain(ctx)
	if err != nil {
		return Delivery{}, err
	}
	if received == 0 {
		return Delivery{}, errors.New("send packets: none arrived")
	}
	return delivery(float64(received), sent), nil
}

func delivery(received float64, sent *report) Delivery {
	return Delivery{
		Rate: received / sent.Seconds / 1e3,
		Loss: max(0, 100*(1-received/float64(sent.Count))),
		CPU:  sent.Busy * 1e6 / received,
	}
}
